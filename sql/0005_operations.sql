-- Who has which 16 bits of the session ids. The sequence session_workers proposes numbers, so that one is not used again soon.
create table session_worker_leases (
  number integer primary key,
  holder uuid not null,
  leased_until timestamptz not null
);

-- Whether anybody is reached by a provider that there are no credentials for.
create index devices_reached on devices (send_platform, device_platform) where not token_invalid;
