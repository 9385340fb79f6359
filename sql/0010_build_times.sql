-- Times of publication, which downloads tell as Last-Modified: of a build, and of a file name, because a link may lead to the newest build
-- of a name. Whole seconds, and no two states of a name share one: a client that knows its part of a file by its date must not go on with
-- another file. By a trigger, because processes of the version before publish, too.

create table build_names (
  name text primary key,
  changed_at timestamptz not null -- when another build, or none, came to be under the name
);

alter table builds add column published_at timestamptz;

-- The first 48 bits of an object's id are the milliseconds at which its upload began.
update builds set published_at = date_trunc('second', to_timestamp(
  ('x' || replace(left(object_id::text, 13), '-', ''))::bit(48)::bigint / 1000));

alter table builds alter column published_at set not null;

insert into build_names (name, changed_at) select name, max(published_at) from builds group by name;

-- Rows of builds are always locked before names are.
create function change_build_names(names text[], at timestamptz) returns void language sql as $$
  insert into build_names (name, changed_at)
  select name, at from unnest(names) as name where name is not null group by name order by name
  on conflict (name) do update
    set changed_at = greatest(excluded.changed_at, build_names.changed_at + interval '1 second')
$$;

-- An insert may find its version taken, so it must not lock a name yet.
create function date_build() returns trigger language plpgsql as $$
begin
  new.published_at := greatest(date_trunc('second', clock_timestamp()),
    (select changed_at + interval '1 second' from build_names where name = new.name));
  return new;
end
$$;

create function note_build_inserted() returns trigger language plpgsql as $$
begin
  perform change_build_names(array[new.name], new.published_at);
  return null;
end
$$;

create function note_build_updated() returns trigger language plpgsql as $$
begin
  if (new.name, new.object_id, new.withdrawn) = (old.name, old.object_id, old.withdrawn) then
    return new;
  end if;
  perform change_build_names(array[old.name, new.name], date_trunc('second', clock_timestamp()));
  if (new.name, new.object_id) <> (old.name, old.object_id) then
    select changed_at into new.published_at from build_names where name = new.name;
  end if;
  return new;
end
$$;

create function note_build_deleted() returns trigger language plpgsql as $$
begin
  perform change_build_names(array[old.name], date_trunc('second', clock_timestamp()));
  return null;
end
$$;

create trigger date_build before insert on builds for each row execute function date_build();
create trigger note_build_inserted after insert on builds for each row execute function note_build_inserted();
create trigger note_build_updated before update of name, object_id, withdrawn on builds
  for each row execute function note_build_updated();
create trigger note_build_deleted after delete on builds for each row execute function note_build_deleted();
