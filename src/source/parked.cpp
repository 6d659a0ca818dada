#include "source/parked.hpp"

namespace eventbus::source {

void ParkedPart::begin(delivery::Dispatcher& dispatcher, delivery::StreamId stream) {
    dispatcher.park_key_of(route, number, stream);
    takes = &dispatcher.parked_key(route, number);
}

void ParkedPart::resume(delivery::Dispatcher& dispatcher, delivery::StreamId stream, delivery::ParkedKey what) {
    dispatcher.add_parked_key(route, number, stream, std::move(what));
    takes = &dispatcher.parked_key(route, number);
}

void ParkedPart::end(delivery::Dispatcher& dispatcher) {
    dispatcher.end_parked_key(route, number);
    ended = true;
}

}  // namespace eventbus::source
