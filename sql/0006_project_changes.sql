-- When a project was last changed, so that its records in the segments can be applied in any order.
alter table projects add column changed_at timestamptz not null default now();
