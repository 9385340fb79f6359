-- Sends to browsers were counted nowhere.
alter table notifications add column sent_web bigint not null default 0;
-- A token that several devices have is sent to once in a launch.
create index devices_push_token on devices using hash (push_token);
