-- What batches say about their session. Written some time after they are acknowledged.
alter table sessions
  add column events bigint not null default 0, -- messages in its batches
  add column clicks bigint not null default 0,
  add column page_views bigint not null default 0,
  add column errors bigint not null default 0,
  add column first_at timestamptz, -- by the client's clock, like last_at
  add column last_at timestamptz,
  add column received_at timestamptz, -- of the last batch
  add column duration_ms bigint not null default 0,
  add column labels jsonb not null default '{}', -- user ids, anonymous ids and metadata, to search by
  add column pages text[] not null default '{}', -- URLs and screens
  add column dated_labels jsonb not null default '{}'; -- all of these with their times, from which they follow

-- Room in each page for updated rows, so that most updates need not touch any index.
alter table sessions set (fillfactor = 70);

create index sessions_user_id on sessions (project_id, user_id, started_at desc, id desc) where user_id is not null;
create index sessions_labels on sessions using gin (labels jsonb_path_ops);
create index sessions_errors on sessions (project_id, started_at desc, id desc) where errors > 0;

-- false: the batches of the segment have still to be read for what they say about their sessions
alter table segments add column facts_written boolean not null default false;
create index segments_facts_due on segments (id) where not facts_written and not deleted;
