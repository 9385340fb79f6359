-- Sends to browsers were counted nowhere.
alter table notifications add column sent_web bigint not null default 0;
