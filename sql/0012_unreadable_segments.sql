-- Segments whose objects were found missing or damaged. Their copies give way to copies that are sent again.
create table unreadable_segments (
  segment_id uuid primary key, -- also of a segment that has no row
  found_at timestamptz not null default now()
);
