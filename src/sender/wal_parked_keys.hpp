// What it is: detours of routes from the WAL: a key that the broker refuses for long goes on beside its route.
// Who calls it: wal_feed.cpp as events come; WalSource for their beginning and their rows.
// Never: reads the WAL: a detour is given what its route is lent, and after a restart what its route is past.
#pragma once

#include "sender/wal_feed.hpp"

namespace eventbus::sender {

struct WalDetour;

// The route, which is stuck, parts with what holds it up. False where it cannot for now: there is no file to be had.
bool begin_wal_detour(SenderRoute* route);
// Those of earlier times; the route has been added to the dispatcher, and nothing has been lent to it.
void load_wal_detours(SenderRoute* route);
void forget_wal_detours(SenderRoute* route);
// One that is about to be lent to the route.
void show_to_detours(SenderRoute* route, const Event& event);
// One that the route is past; its detours may not be.
void show_past_to_detours(SenderRoute* route, const Event& event);
// What they were shown since is there to stay, or is taken back: before, they had everything that comes `before`.
void keep_what_came_to_detours(const SenderRoute* route, const wal::Position& before, const wal::Position& now);
void take_back_what_came_to_detours(const SenderRoute* route);
void forget_files_of_detours(const SenderRoute* route);
// Detours get what there is room for, and end where they have caught up. Everything before `handed` is with the routes.
void feed_wal_detours(SenderRoute* route, const wal::Position& handed);
// Whether one could be given more at once.
bool a_detour_waits(const SenderRoute* route);
// Nobody reads for them now; what was shown to them goes so far.
void close_wal_detours(SenderRoute* route, const wal::Position& handed);
bool a_detour_is_behind(const SenderRoute* route);
void read_detours_again(SenderRoute* route);
// In how many milliseconds that is to be; negative: not yet.
long detours_read_again_in(const SenderRoute* route);
const char* file_trouble_of_detours(const SenderRoute* route);  // empty: there is none
bool give_back_to_detours(SenderRoute* route, const delivery::Report::Finished& finished);
// Between SPI_connect and SPI_finish; the route's own cursor has been saved.
void save_wal_detours(SenderRoute* route);
void wal_detours_saved(SenderRoute* route);  // and that has been committed
// Where the first of them begins that may still want what the route is past; `from` where there is none.
wal::Position first_of_detours(const SenderRoute* route, const wal::Position& from);
// What commits before it is settled on the route, as far as `settled`, and on its detours.
wal::Position settled_on_detours(const SenderRoute* route, const wal::Position& settled);
// The place that the route's detours still need, where it is before `least`.
wal::Position least_of_detours(const SenderRoute* route, const wal::Position& least);

}  // namespace eventbus::sender
