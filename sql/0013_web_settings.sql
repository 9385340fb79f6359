-- What web pages of a project are told; null: as configured.
alter table projects
  add column record_canvas boolean,
  add column canvas_quality text check (canvas_quality in ('low', 'medium', 'high')),
  add column canvas_fps smallint check (canvas_fps between 1 and 60),
  add column session_ms integer check (session_ms between 1000 and 604800000); -- null: two hours
