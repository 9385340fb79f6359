-- Archives: objects of one project and day, to which batches and images are moved from segments.
create table archives (
  id uuid primary key,
  project_id integer not null, -- 0: of sessions that belong to no known project
  day date not null, -- UTC: of its sessions' starts, or on which its other records were stored
  kind text not null check (kind in ('sessions', 'images', 'projects')),
  bytes bigint not null,
  records integer not null,
  created_at timestamptz not null default now(),
  leased_until timestamptz, -- until then a working process is merging it
  has_erased boolean not null default false -- it holds what no row refers to, and is to be rewritten without it
);
create index archives_day on archives (project_id, day, kind);
create index archives_erased on archives (created_at) where has_erased;

-- The records of one session in one archive.
create table session_pieces (
  session_id bigint not null,
  archive_id uuid not null,
  start bigint not null, -- of the first record's header
  length bigint not null,
  index_start bigint not null, -- of the header of its first index; indexes are its last records
  batches integer not null, -- 0: it has only rows
  quarantined integer not null,
  messages bigint not null,
  bytes bigint not null, -- when inflated
  first_segment uuid, -- where the first batch was stored before it was archived
  first_offset integer,
  first_received timestamptz,
  last_received timestamptz,
  first_at timestamptz,
  last_at timestamptz,
  primary key (session_id, archive_id)
);
create index session_pieces_archive on session_pieces (archive_id, session_id);

-- Objects to delete. An archive is in here from before its first byte until its row is committed.
create table object_garbage (
  key text primary key,
  due_at timestamptz not null,
  replaced_by uuid[], -- archives that have all that it had; null: its rows were never committed
  kept boolean not null default false, -- it is not deleted, because it may be the only copy of something
  removed boolean not null default false -- the object is gone: others may still name it as their source
);
create index object_garbage_due on object_garbage (due_at);
create index object_garbage_replaced on object_garbage using gin (replaced_by);

create sequence segment_positions;
alter table segments
  add column position bigint, -- rises with the order of commits
  add column archived_at timestamptz,
  add column leased_until timestamptz; -- until then a working process is archiving it
update segments set position = numbered.position
  from (select id, nextval('segment_positions') as position from (select id from segments order by id) as ordered) as numbered
  where segments.id = numbered.id;
alter table segments alter column position set default nextval('segment_positions');
create index segments_landing on segments (id) where archived_at is null and not deleted;
create index segments_archived on segments (archived_at) where archived_at is not null and not deleted;
create index segments_dropped on segments (archived_at) where archived_at is not null and deleted;

alter table image_contents
  add column archive_id uuid, -- null: in chunks
  add column archive_offset bigint, -- of the first record's header
  add column archive_length bigint,
  add column leased_until timestamptz; -- until then a working process is archiving it, or need not try again
create index image_contents_landing on image_contents (stored_at) where archive_id is null;
create index image_contents_archive on image_contents (archive_id) where archive_id is not null;

-- Serving process whose version reads archives, if it is the row's holder.
alter table session_worker_leases add column archive_reader uuid;
