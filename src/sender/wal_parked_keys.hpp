// What it is: parked keys of routes from the WAL: a key that the broker refuses for long is delivered beside its route.
// Who calls it: wal_feed.cpp as events come; WalSource for their beginning and their rows.
// Never: reads the WAL: a parked key is given what its route is lent, and after a restart what its route is past.
#pragma once

#include "sender/wal_feed.hpp"

namespace eventbus::sender {

struct WalParkedKey;

// The route, which is stuck, parts with what holds it up. False where it cannot for now: there is no file to be had.
bool park_wal_key(SenderRoute* route);
// Those of earlier times; the route has been added to the dispatcher, and nothing has been lent to it.
void load_wal_parked_keys(SenderRoute* route);
void forget_wal_parked_keys(SenderRoute* route);
// One that is about to be lent to the route.
void show_to_parked_keys(SenderRoute* route, const Event& event);
// One that the route is past; its parked keys may not be.
void show_past_to_parked_keys(SenderRoute* route, const Event& event);
// What they were shown since is there to stay, or is taken back: before, they had everything that comes `before`.
void keep_what_came_to_parked_keys(const SenderRoute* route, const wal::Position& before, const wal::Position& now);
void take_back_what_came_to_parked_keys(const SenderRoute* route);
void forget_files_of_parked_keys(const SenderRoute* route);
// Parked keys get what there is room for, and end where they have caught up. Everything before `handed` is with the
// routes.
void feed_wal_parked_keys(SenderRoute* route, const wal::Position& handed);
// Whether one could be given more at once.
bool a_parked_key_waits(const SenderRoute* route);
// Nobody reads for them now; what was shown to them goes so far.
void close_wal_parked_keys(SenderRoute* route, const wal::Position& handed);
bool a_parked_key_is_behind(const SenderRoute* route);
void read_parked_keys_again(SenderRoute* route);
// In how many milliseconds that is to be; negative: not yet.
long parked_keys_read_again_in(const SenderRoute* route);
const char* file_trouble_of_parked_keys(const SenderRoute* route);  // empty: there is none
bool give_back_to_parked_keys(SenderRoute* route, const delivery::Report::Finished& finished);
// Between SPI_connect and SPI_finish; the route's own cursor has been saved.
void save_wal_parked_keys(SenderRoute* route);
void wal_parked_keys_saved(SenderRoute* route);  // and that has been committed
// Where the first of them begins that may still want what the route is past; `from` where there is none.
wal::Position first_of_parked_keys(const SenderRoute* route, const wal::Position& from);
// What commits before it is settled on the route, as far as `settled`, and on its parked keys.
wal::Position settled_on_parked_keys(const SenderRoute* route, const wal::Position& settled);
// The place that the route's parked keys still need, where it is before `least`.
wal::Position least_of_parked_keys(const SenderRoute* route, const wal::Position& least);

}  // namespace eventbus::sender
