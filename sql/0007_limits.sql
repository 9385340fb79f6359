-- Bytes that are stored for each project on each UTC day, counted while the project has a quota.
create table project_usage (
  day date not null,
  project_id integer not null, -- 0: of sessions that belong to no known project
  bytes bigint not null,
  primary key (day, project_id)
);

-- null: QUOTA_BYTES_PER_DAY
alter table projects add column daily_bytes_max bigint check (daily_bytes_max > 0);
