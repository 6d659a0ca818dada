// What it is: delivery to one broker: the loop of drive, settle and offer over routes, feeds and the link.
// Who calls it: the sender.
// Never: stays in drive() for longer than a few milliseconds.
#include "delivery/dispatcher.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "delivery/context.hpp"
#include "delivery/lent_stream.hpp"
#include "delivery/link.hpp"
#include "delivery/route_queue.hpp"

namespace eventbus::delivery {

using broker::LinkState;

namespace {

constexpr unsigned number_bits = RouteQueue::number_bits;
constexpr std::uint64_t number_mask = (std::uint64_t{1} << number_bits) - 1;
constexpr std::size_t most_slots = std::size_t{1} << (64 - number_bits);
constexpr std::size_t quantum = 64;  // tickets a route offers in its turn
constexpr std::size_t offers_before_drive = 1024;
constexpr std::size_t tickets_a_drive = 4096;

}  // namespace

void Report::clear() {
    dead.clear();
    notices.clear();
    finished.clear();
    moved = false;
}

struct Dispatcher::Impl {
    struct Slot {
        std::unique_ptr<RouteQueue> queue;
        bool may_park_keys = false;
        std::uint64_t first_number = 0;  // of the next route here; never falls, so that old tickets stay unknown
    };

    Impl(std::string broker_shown, Connect connect, WallClock wall_clock, DispatcherLimits limits, std::uint32_t seed)
        : wall(std::move(wall_clock)),
          context{std::move(broker_shown), limits, seed == 0 ? 1 : seed},
          link(std::move(connect), context) {}

    WallClock wall;
    Context context;
    std::vector<Slot> slots;
    std::unordered_map<RouteId, std::vector<std::size_t>> slots_of;  // a route's and its parked keys', not removed
    std::size_t removed = 0;                                         // queues that wait for their open tickets
    std::map<StreamId, LentStream> streams;
    LinkKeeper link;  // goes first at the end: its driver borrows from the others
    std::size_t next_slot = 0;
    std::array<Settlement, 256> settlements;
    std::vector<EventId> ids;  // that settled_ahead() has shown

    // Number 0 is the route itself.
    RouteQueue* find(RouteId id, ParkedKeyId number) const {
        const auto found = slots_of.find(id);
        if (found == slots_of.end()) return nullptr;
        for (const auto at : found->second) {
            if (slots[at].queue->parked_key_number() == number) return slots[at].queue.get();
        }
        return nullptr;
    }
    RouteQueue& get(RouteId id, ParkedKeyId number = 0) const {
        auto* found = find(id, number);
        if (found == nullptr) {
            throw std::logic_error("delivery has no route " + std::to_string(id) +
                                   (number > 0 ? " with parked key " + std::to_string(number) : ""));
        }
        return *found;
    }
    // A route and its parked keys.
    template <class Visit>
    void each(RouteId id, Visit visit) const {
        get(id);
        for (const auto at : slots_of.at(id)) visit(*slots[at].queue);
    }
    void put(std::size_t at, std::unique_ptr<RouteQueue> queue) {
        slots_of[queue->id()].push_back(at);
        streams[queue->stream()].add(queue.get());
        slots[at].queue = std::move(queue);
    }
    // Its open tickets are forgotten when they settle.
    void remove(RouteQueue& queue) {
        queue.remove();
        streams[queue.stream()].filters_changed();
        auto& of_route = slots_of[queue.id()];
        std::erase(of_route, std::size_t{queue.slot()});
        if (of_route.empty()) slots_of.erase(queue.id());
        ++removed;
    }
    void add_parked_key(RouteId id, ParkedKeyId number, StreamId stream, ParkedKey parked_key) {
        auto& route = get(id);
        route.pass_over(parked_key);
        const auto at = free_slot();
        put(at, std::make_unique<RouteQueue>(route, std::move(parked_key), number, streams[stream].feed(), stream,
                                             std::uint64_t{at} << number_bits, slots[at].first_number));
    }
    std::size_t free_slot() {
        for (std::size_t i = 0; i < slots.size(); ++i) {
            if (!slots[i].queue) return i;
        }
        if (slots.size() == most_slots) throw std::length_error("too many routes on one broker");
        slots.emplace_back();
        return slots.size() - 1;
    }
    void drop_removed() {
        if (removed == 0) return;
        for (auto& slot : slots) {
            if (!slot.queue || !slot.queue->is_removed() || slot.queue->in_flight() > 0) continue;
            streams[slot.queue->stream()].remove(slot.queue.get());
            slot.first_number = slot.queue->next_number();
            slot.queue.reset();
            --removed;
        }
    }

    void drop_unused_stream(StreamId stream) {
        const auto found = streams.find(stream);
        if (found != streams.end() && found->second.feed().empty() && found->second.queues().empty())
            streams.erase(found);
    }

    std::size_t events_waiting() const {
        std::size_t events = 0;
        for (const auto& [id, stream] : streams) events += stream.feed().events_from(stream.lowest(context));
        return events;
    }

    bool hungry(StreamId id) const {
        const auto found = streams.find(id);
        if (found == streams.end()) return false;
        const auto& stream = found->second;
        if (std::all_of(stream.queues().begin(), stream.queues().end(),
                        [](const RouteQueue* queue) { return queue->is_removed(); }))
            return false;
        const auto place = stream.lowest(context);
        if (place == stream.feed().end()) return true;
        return stream.feed().events_from(place) < context.limits.events &&
               stream.feed().bytes_from(place) < context.limits.bytes;
    }

    void settle() {
        auto& driver = *link.driver();
        while (const auto count = driver.settle(settlements)) {
            context.wall_now = wall();
            for (std::size_t i = 0; i < count; ++i) {
                auto& settlement = settlements[i];
                const auto slot = settlement.ticket >> number_bits;
                if (slot < slots.size() && slots[slot].queue) {
                    slots[slot].queue->settle(settlement.ticket & number_mask, settlement);
                }
            }
        }
        if (context.delivered > 0) link.worked();
        context.caution.delivered += std::exchange(context.delivered, 0);
    }

    std::size_t in_flight() const {
        std::size_t tickets = 0;
        for (const auto& slot : slots) tickets += slot.queue ? slot.queue->in_flight() : 0;
        return tickets;
    }

    // Where all routes are paused there is nothing to say: a link that stands is kept, but none is made.
    bool wants_link() const {
        bool has_routes = false;
        for (const auto& slot : slots) {
            if (!slot.queue || slot.queue->is_removed()) continue;
            if (!slot.queue->is_paused()) return true;
            has_routes = true;
        }
        return !has_routes;
    }

    // Suspects wait until something was delivered on this link, or until there is nothing else to offer.
    std::size_t offer() {
        auto& caution = context.caution;
        if (caution.under_test > 0 && in_flight() == 0) {
            caution.under_test = 0;
            caution.next_test = std::min(caution.next_test * 2, SuspectSearch::most_at_once);
        }
        if (caution.under_test > 0) return 0;
        if (first_suspects() == nullptr) {
            caution.next_test = 1;
        } else if (in_flight() > 0) {
            if (caution.delivered > 0) return 0;
        } else if (caution.delivered > 0 || !has_others()) {
            offer_suspects();
            if (caution.under_test > 0) return caution.under_test;
        }
        return offer_in_turn();
    }

    // The route with the suspect that is most likely innocent.
    RouteQueue* first_suspects() {
        if (!context.any_suspects) return nullptr;
        context.any_suspects = false;
        RouteQueue* found = nullptr;
        const Suspicion* least = nullptr;
        for (auto& slot : slots) {
            const auto* suspicion = slot.queue ? slot.queue->first_suspect() : nullptr;
            context.any_suspects = context.any_suspects || (slot.queue && slot.queue->has_suspects());
            if (suspicion == nullptr || (least != nullptr && *suspicion >= *least)) continue;
            found = slot.queue.get();
            least = suspicion;
        }
        return found;
    }
    bool has_suspects() const {
        return std::any_of(slots.begin(), slots.end(),
                           [](const Slot& slot) { return slot.queue && slot.queue->may_test(); });
    }
    bool has_others() const {
        return std::any_of(slots.begin(), slots.end(),
                           [](const Slot& slot) { return slot.queue && slot.queue->has_offer(); });
    }
    // Suspects that were under way at as many breaks: twice as many each time that all goes well.
    void offer_suspects() {
        auto& caution = context.caution;
        const auto suspicion = *first_suspects()->first_suspect();
        if (suspicion != caution.tested || suspicion.blame != Blame::none) caution.next_test = 1;
        caution.tested = suspicion;
        while (caution.under_test < caution.next_test) {
            auto* queue = first_suspects();
            if (queue == nullptr || *queue->first_suspect() != suspicion) break;
            caution.under_test += queue->offer_suspect(*link.driver());
        }
    }

    // In turn, so that one busy route does not keep others waiting. A route whose turn ended at the driver's no
    // goes last the next time, one that got nothing goes first.
    std::size_t offer_in_turn() {
        std::size_t offered = 0;
        std::size_t idle = 0;
        std::size_t next = slots.size();
        std::size_t at = next_slot < slots.size() ? next_slot : 0;
        while (idle < slots.size() && offered < offers_before_drive) {
            auto* queue = slots[at].queue.get();
            const auto follower = at + 1 < slots.size() ? at + 1 : 0;
            std::size_t count = 0;
            if (queue != nullptr && !queue->window_full()) {
                count = queue->offer(*link.driver(), std::min(quantum, offers_before_drive - offered));
                if (queue->window_full() && next == slots.size()) next = count > 0 ? follower : at;
            }
            offered += count;
            idle = count > 0 ? 0 : idle + 1;
            at = follower;
        }
        next_slot = next < slots.size() ? next : at;
        return offered;
    }

    void lost() {
        for (auto& slot : slots) {
            if (slot.queue) slot.queue->link_lost();
        }
        for (auto& slot : slots) {
            if (slot.queue && context.caution.culprit != EventId()) slot.queue->absolve(context.caution.culprit);
        }
        const bool expected = context.caution.expected;
        context.delivered_before = context.caution.delivered;
        context.caution = {};
        const bool follows =
            context.refused_at != TimePoint{} && context.now - context.refused_at < context.limits.consequence;
        link.lost(events_waiting(), expected, follows);
    }

    void drive(broker::Ready ready, TimePoint now) {
        const auto started = broker::Clock::now();
        context.now = now;
        context.wall_now = wall();
        if (link.driver() == nullptr && wants_link()) link.connect_if_due(events_waiting());
        std::size_t tickets = 0;
        for (bool last = false; link.driver() != nullptr;) {
            const auto state = link.drive(ready);
            if (state == LinkState::down && link.down().remedy != Remedy::fix_settings && !link.down().goodbye) {
                context.caution.broke = true;
                context.caution.reason = link.down().reason;
            }
            settle();
            for (auto& slot : slots) {
                if (slot.queue) slot.queue->new_drive();
            }
            if (state == LinkState::up && link.is_in_trouble() && events_waiting() == 0) link.is_back();
            if (state == LinkState::down) lost();
            if (state != LinkState::up || last) break;
            const auto offered = offer();
            if (offered == 0) break;
            tickets += offered;
            last = tickets >= tickets_a_drive || broker::Clock::now() - started >= context.limits.longest_drive;
            ready = {false, true};
        }
        drop_removed();
    }

    TimePoint wake_at() const {
        if (!context.report.notices.empty()) return TimePoint{};  // somebody waits to hear them
        auto due = link.driver() != nullptr || wants_link() ? link.wake_at() : TimePoint::max();
        if (link.is_resting() && link.driver() == nullptr && wants_link() && events_waiting() > 0) return TimePoint{};
        if (link.driver() == nullptr || link.state() != LinkState::up) return due;
        const bool busy = in_flight() > 0;
        if (context.caution.under_test > 0) return due;
        if (context.caution.delivered > 0 && busy && has_suspects()) return due;
        for (const auto& slot : slots) {
            if (slot.queue) due = std::min(due, slot.queue->wake_at(!busy));
        }
        return due;
    }

    RouteState route_state() const {
        switch (link.state()) {
            case LinkState::up:
                return RouteState::active;
            case LinkState::blocked:
                return RouteState::blocked;
            default:
                if (link.is_resting()) return RouteState::active;
                if (link.is_refused()) return RouteState::held;
                return link.is_in_trouble() ? RouteState::retrying : RouteState::connecting;
        }
    }
};

Dispatcher::Dispatcher(std::string broker_shown, Connect connect, WallClock wall, DispatcherLimits limits,
                       std::uint32_t seed)
    : impl_(std::make_unique<Impl>(std::move(broker_shown), std::move(connect), std::move(wall), limits, seed)) {}

Dispatcher::~Dispatcher() = default;

void Dispatcher::add_route(router::Route route, StreamId stream, bool may_park_keys, std::optional<RouteId> kin) {
    if (impl_->find(route.id, 0) != nullptr) {
        throw std::logic_error("delivery has route " + std::to_string(route.id) + " already");
    }
    const auto at = impl_->free_slot();
    impl_->put(at, std::make_unique<RouteQueue>(std::move(route), impl_->context, impl_->streams[stream].feed(), stream,
                                                std::uint64_t{at} << number_bits, impl_->slots[at].first_number));
    impl_->slots[at].may_park_keys = may_park_keys;
    if (kin) impl_->slots[at].queue->share_evidence(impl_->get(*kin));
}

void Dispatcher::change_route(const router::Route& route) {
    impl_->each(route.id, [&](RouteQueue& queue) {
        queue.change(route);
        impl_->streams[queue.stream()].filters_changed();
    });
}

void Dispatcher::remove_route(RouteId id) {
    impl_->get(id);
    for (const auto at : std::vector<std::size_t>(impl_->slots_of[id])) impl_->remove(*impl_->slots[at].queue);
    impl_->drop_removed();
}

void Dispatcher::pause_route(RouteId id, bool paused) {
    impl_->each(id, [&](RouteQueue& queue) { queue.pause(paused); });
}

void Dispatcher::release_route(RouteId id) {
    impl_->each(id, [](RouteQueue& queue) { queue.release_hold(); });
    impl_->link.hurry();
}

void Dispatcher::move_route(RouteId id, StreamId stream) {
    auto& queue = impl_->get(id);
    if (!queue.is_idle()) throw std::logic_error("route " + std::to_string(id) + " is moved while it is busy");
    const auto before = queue.stream();
    impl_->streams[before].remove(&queue);
    queue.move(impl_->streams[stream].feed(), stream);
    impl_->streams[stream].add(&queue);
    impl_->drop_unused_stream(before);
}

std::uint64_t Dispatcher::leave_out(RouteId id, std::span<const ChunkId> chunks, ParkedKeyId number) {
    auto& queue = impl_->get(id, number);
    const auto found = impl_->streams.find(queue.stream());
    if (found == impl_->streams.end()) return 0;
    const auto& feed = found->second.feed();
    std::vector<Place> places;
    for (const ChunkId chunk : chunks) {
        const Place place = feed.place_of({chunk, 0});
        if (place < feed.end() && feed.shown(place).chunk == chunk) places.push_back(place);
    }
    return queue.leave_out(places);
}

std::optional<RouteId> Dispatcher::stuck() const {
    if (impl_->link.state() != LinkState::up) return std::nullopt;
    for (const auto& slot : impl_->slots) {
        if (!slot.queue || !slot.may_park_keys || !slot.queue->waits_for_refused()) continue;
        const auto stream = slot.queue->stream();
        const bool starved = !impl_->hungry(stream) || impl_->streams.at(stream).is_closed();
        if (slot.queue->is_stuck(starved)) return slot.queue->id();
    }
    return std::nullopt;
}

void Dispatcher::park_key_of(RouteId id, ParkedKeyId number, StreamId stream) {
    impl_->add_parked_key(id, number, stream, impl_->get(id).part());
}

void Dispatcher::add_parked_key(RouteId id, ParkedKeyId number, StreamId stream, ParkedKey parked_key) {
    impl_->add_parked_key(id, number, stream, std::move(parked_key));
}

void Dispatcher::end_parked_key(RouteId id, ParkedKeyId number) {
    impl_->get(id).take_again(parked_key(id, number));
}

void Dispatcher::remove_parked_key(RouteId id, ParkedKeyId number) {
    auto& queue = impl_->get(id, number);
    const auto stream = queue.stream();
    impl_->get(id).absorb(queue);
    impl_->remove(queue);
    impl_->drop_removed();
    impl_->drop_unused_stream(stream);
}

const ParkedKey& Dispatcher::parked_key(RouteId id, ParkedKeyId number) const {
    return *impl_->get(id, number).parked_key();
}

std::span<const EventId> Dispatcher::settled_ahead(RouteId id, ParkedKeyId number) {
    return impl_->ids = impl_->get(id, number).settled_ahead();
}

bool Dispatcher::hungry(StreamId stream) const {
    return impl_->hungry(stream);
}

bool Dispatcher::is_idle(RouteId id) const {
    return impl_->get(id).is_idle();
}

bool Dispatcher::stands_still(StreamId stream) const {
    const auto found = impl_->streams.find(stream);
    if (found == impl_->streams.end()) return false;
    const auto& queues = found->second.queues();
    return std::any_of(queues.begin(), queues.end(), [](const RouteQueue* queue) { return queue->stands_still(); });
}

void Dispatcher::close_stream(StreamId stream, bool closed) {
    const auto found = impl_->streams.find(stream);
    if (found != impl_->streams.end()) found->second.close(closed);
}

std::size_t Dispatcher::lend(StreamId stream, const Chunk& chunk) {
    return impl_->streams[stream].lend(chunk);
}

broker::Interest Dispatcher::interest() const {
    return impl_->link.interest();
}

TimePoint Dispatcher::wake_at() const {
    return impl_->wake_at();
}

void Dispatcher::drive(broker::Ready ready, TimePoint now) {
    impl_->drive(ready, now);
}

void Dispatcher::report(Report& into) {
    auto& made = impl_->context.report;
    for (auto& [id, stream] : impl_->streams) {
        stream.feed().finish_before(stream.lowest(impl_->context), id, made.finished);
    }
    into.clear();
    std::swap(into, made);
}

void Dispatcher::release(std::span<const Report::Finished> finished) {
    for (const auto& [stream, chunk] : finished) {
        const auto found = impl_->streams.find(stream);
        if (found != impl_->streams.end()) found->second.feed().release(chunk);
        impl_->drop_unused_stream(stream);
    }
}

RouteStatus Dispatcher::status(RouteId id, ParkedKeyId number) const {
    return impl_->get(id, number).status(impl_->route_state());
}

RouteStatus Dispatcher::status(RouteId id) const {
    auto status = this->status(id, 0);
    impl_->each(id, [&](const RouteQueue& queue) {
        if (queue.parked_key() == nullptr) return;
        const auto beside = queue.status(impl_->route_state());
        status.delivered += beside.delivered;
        status.dead += beside.dead;
        status.retries += beside.retries;
        status.in_flight += beside.in_flight;
        status.last_delivered_at = std::max(status.last_delivered_at, beside.last_delivered_at);
        if (status.oldest_published_at == 0 ||
            (beside.oldest_published_at != 0 && beside.oldest_published_at < status.oldest_published_at)) {
            status.oldest_published_at = beside.oldest_published_at;
        }
        if (status.next_attempt_at == TimePoint{} ||
            (beside.next_attempt_at != TimePoint{} && beside.next_attempt_at < status.next_attempt_at)) {
            status.next_attempt_at = beside.next_attempt_at;
        }
        if (beside.last_error_at > status.last_error_at) {
            status.last_error_at = beside.last_error_at;
            status.last_error = beside.last_error;
        }
    });
    if (impl_->link.last_error_at() > status.last_error_at) {
        status.last_error_at = impl_->link.last_error_at();
        status.last_error = impl_->link.last_error();
    }
    const auto& link = impl_->link;
    if (link.driver() == nullptr && status.state != RouteState::paused)
        status.next_attempt_at = link.is_resting() ? TimePoint{} : link.wake_at();
    return status;
}

bool Dispatcher::is_settled(RouteId id, Position event, ParkedKeyId number) const {
    return impl_->get(id, number).is_settled(event);
}

void Dispatcher::take_latencies(RouteId id, LatencyCounts& into) {
    impl_->each(id, [&](RouteQueue& queue) { queue.take_latencies(into); });
}

Load Dispatcher::load() const {
    Load load;
    for (const auto& slot : impl_->slots) {
        if (!slot.queue) continue;
        load.under_way |= slot.queue->in_flight() > 0;
        load.waiting |= !slot.queue->is_idle();
    }
    return load;
}

broker::LinkState Dispatcher::link() const {
    return impl_->link.state();
}

std::string_view Dispatcher::link_error() const {
    return impl_->link.error();
}

}  // namespace eventbus::delivery
