#include "source/parked.hpp"

namespace eventbus::source {

void Parked::begin(delivery::Dispatcher& dispatcher, delivery::StreamId stream) {
    dispatcher.begin_detour(route, number, stream);
    takes = &dispatcher.detour(route, number);
}

void Parked::resume(delivery::Dispatcher& dispatcher, delivery::StreamId stream, delivery::Detour what) {
    dispatcher.add_detour(route, number, stream, std::move(what));
    takes = &dispatcher.detour(route, number);
}

void Parked::end(delivery::Dispatcher& dispatcher) {
    dispatcher.end_detour(route, number);
    ended = true;
}

}  // namespace eventbus::source
