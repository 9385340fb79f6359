-- Last-seen: written behind, so that it survives a restart of every process and of Redis.

create table presence_devices (
  user_id text not null,
  client_id text not null,
  changed_at timestamptz not null, -- of the newest ping or bye
  gone boolean not null, -- said bye since its newest ping
  pinged_at timestamptz, -- null: only a bye is known
  status text,
  seen_at timestamptz, -- of the newest ping that was not invisible
  seen_status text,
  primary key (user_id, client_id)
) with (fillfactor = 70); -- every ping updates its row in place
