-- Archives: objects of one project and day, to which batches and images are moved from segments.
create table archives (
  id uuid primary key,
  project_id integer not null, -- 0: of sessions that belong to no known project
  day date not null, -- of its sessions' starts, or on which its images were stored
  kind text not null check (kind in ('sessions', 'images')),
  bytes bigint not null,
  records integer not null,
  created_at timestamptz not null default now()
);
create index archives_day on archives (project_id, day, kind);

-- The batches of one session in one archive.
create table session_pieces (
  session_id bigint not null,
  archive_id uuid not null,
  "offset" bigint not null, -- of the first record's header
  length bigint not null,
  batches integer not null,
  quarantined integer not null,
  messages bigint not null,
  bytes bigint not null, -- when inflated
  first_segment uuid not null, -- place of the first batch in the order of commits
  first_offset integer not null,
  last_segment uuid not null,
  last_offset integer not null,
  first_received timestamptz not null,
  last_received timestamptz not null,
  first_at timestamptz,
  last_at timestamptz,
  primary key (session_id, archive_id)
);
create index session_pieces_archive on session_pieces (archive_id);

-- Objects to delete. An object is in here from before its first byte until its row is committed.
create table object_garbage (
  key text primary key,
  due_at timestamptz not null
);
create index object_garbage_due on object_garbage (due_at);

create sequence segment_positions;
alter table segments
  add column position bigint, -- rises with the order of commits
  add column archived_at timestamptz,
  add column leased_until timestamptz; -- until then a working process is archiving it
update segments set position = numbered.position
  from (select id, nextval('segment_positions') as position from (select id from segments order by id) as ordered) as numbered
  where segments.id = numbered.id;
alter table segments
  alter column position set default nextval('segment_positions'),
  alter column position set not null;
create index segments_landing on segments (id) where archived_at is null and not deleted;
create index segments_archived on segments (archived_at) where archived_at is not null and not deleted;

alter table image_contents
  add column archive_id uuid, -- null: in chunks
  add column archive_offset bigint, -- of the first record's header
  add column archive_length bigint;
create index image_contents_landing on image_contents (stored_at) where archive_id is null;
create index image_contents_archive on image_contents (archive_id) where archive_id is not null;

-- false: a serving process of a version that does not read archives
alter table session_worker_leases add column reads_archives boolean not null default false;
