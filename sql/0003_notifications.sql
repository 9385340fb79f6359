-- Devices that can be pushed to, campaigns, and what became of each device in them.

create table devices (
  id bigint generated always as identity primary key,
  external_id text not null,
  push_token text not null,
  send_platform smallint not null default 0 check (send_platform between 0 and 2), -- unknown, FCM, APNs
  device_platform smallint not null default 0 check (device_platform between 0 and 3), -- unknown, Android, iOS, web
  random_bucket smallint not null default floor(random() * 10000) + 1 check (random_bucket between 1 and 10000),
  properties jsonb not null default '{}',
  token_set_at timestamptz not null default now(),
  token_invalid boolean not null default false -- a provider said so of the present token
);
create unique index devices_external_id on devices (external_id);
-- Equality and list membership; ranges of numbers are in device_numbers.
create index devices_properties on devices using gin (properties jsonb_path_ops);

-- The numbers among the properties, those in lists one by one: GIN does not serve ranges. A list with a number and anything else has
-- a row with NaN as well: only there can two bounds be met by different elements.
create table device_numbers (
  device_id bigint not null,
  key text not null,
  value numeric not null,
  primary key (device_id, key, value)
);
create index device_numbers_range on device_numbers (key, value, device_id);

create table notifications (
  id bigint generated always as identity primary key,
  uuid uuid not null default gen_random_uuid(),
  title text not null,
  body text not null,
  image_url text,
  icon_url text,
  deep_link text,
  conditions jsonb not null, -- normalised: every node has all five keys
  status smallint not null default 0 check (status between 0 and 5), -- draft, launched, sent, error, deleted, queued
  scheduled_at timestamptz not null,
  created_at timestamptz not null default now(),
  modified_at timestamptz,
  error text,
  sent_android bigint not null default 0,
  sent_ios bigint not null default 0,
  targeted bigint not null default 0,
  failed bigint not null default 0,
  launch integer not null default 0, -- how many times it was launched
  device_cursor bigint not null default 0, -- devices up to here are targeted
  done_cursor bigint not null default 0, -- of devices up to here every outcome is recorded
  worker uuid, -- who is sending it
  leased_until timestamptz
);
create unique index notifications_uuid on notifications (uuid);
create index notifications_due on notifications (scheduled_at) where status in (1, 5);

-- targeted, and how it ended: one row each. Launch 0: written by an external worker, which may repeat itself.
create table device_events (
  id bigint generated always as identity,
  device_id bigint not null,
  notification_id bigint not null,
  launch integer not null,
  event smallint not null check (event between 0 and 4), -- targeted, sent, failed, invalid token, undeliverable
  created_at timestamptz not null default now(),
  primary key (device_id, id)
);
-- A device is a target once and has one outcome in a launch, also when it had to be sent again after a crash.
create unique index device_events_launch on device_events (notification_id, launch, device_id, (event > 0)) where launch > 0;
