-- Images by their bytes, and which session sent which of them: under one name there can be many contents.

create table image_contents (
  project_id integer not null, -- 0: of sessions that belong to no known project
  name text not null,
  sha256 bytea not null,
  kind text not null check (kind in ('image', 'frames')), -- as it was first sent
  content_type text not null, -- as it was first sent
  bytes bigint not null,
  crc32 bigint not null,
  uses integer not null, -- how often it was sent
  stored_at timestamptz not null,
  network smallint, -- a hash of the network that it was first sent from as an image; so short that it names none
  network_session bigint, -- the session that did
  shared boolean not null default false, -- whether another session sent it as an image from another network
  chunk_segments uuid[] not null,
  chunk_offsets integer[] not null,
  chunk_lengths integer[] not null,
  primary key (project_id, name, sha256)
);
create index image_contents_listed on image_contents (project_id, uses desc, stored_at desc) where shared;

create table image_uses (
  session_id bigint not null,
  name text not null,
  sha256 bytea not null,
  project_id integer not null,
  kind text not null check (kind in ('image', 'frames')),
  content_type text not null,
  sent_at timestamptz not null, -- the last time
  primary key (session_id, name, sha256)
);
create index image_uses_homeless on image_uses (name, sha256) where project_id = 0;

-- From now on images is what processes of the version before write, and read while they still serve. Their rows have no hash until a
-- working process has read the bytes and copied the row; it deletes the row a day later.
alter table images
  add column sha256 bytea,
  add column looked_at timestamptz; -- when a working process last took the row up
