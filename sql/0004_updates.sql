-- Builds of apps that clients are offered, who may publish them, and the clients' users.

create table builds (
  id bigint generated always as identity primary key,
  version text not null,
  target_abi text not null,
  name text not null,
  notes text not null,
  bytes bigint not null,
  md5 text not null,
  sha256 text not null,
  object_id uuid not null, -- of version 7: tells when it was published
  skipped boolean not null, -- false: forced
  uploads bigint not null default 0, -- how often clients reported it
  channel text not null default 'stable',
  rollout double precision not null default 100 check (rollout between 0 and 100), -- percent of devices
  withdrawn boolean not null default false,
  floor_per_abi boolean not null default false, -- forced for its own ABI only
  signature text not null default '', -- Ed25519 over the SHA-256, base64
  unique (version, target_abi)
);

-- Objects that are deleted once due: uploads under way, whose time is put off as they go on, failed ones, and builds that were replaced.
create table build_garbage (
  object_id uuid primary key,
  due_at timestamptz not null
);

create table signatures (
  id integer generated always as identity primary key,
  role text not null check (role in ('client', 'service')),
  digest bytea not null unique, -- SHA-256
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);

create table users (
  id bigint generated always as identity primary key,
  app_locale text not null,
  app_version text not null,
  device_locale text not null,
  device_mac text not null,
  device_model text not null,
  device_sdk text not null,
  session_activity bigint not null,
  session_id bigint not null,
  session_register bigint not null,
  tg_version text not null,
  target_abi text not null,
  unique (session_id, device_mac)
);
