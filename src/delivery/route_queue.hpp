// What it is: one route's tickets: what is under way, what waits, what comes next, and whether the route is held.
// Who calls it: the dispatcher.
// Never: sleeps, logs or talks to a link; it offers to the driver that it is given.
//
// An item is an event of this route from the moment it is taken from the feed until everything before it is settled
// as well. Items are numbered; the number is the ticket. An item is
//   ready   in the heap of what is to be offered, oldest first, before anything new is taken
//   open    with the driver
//   waiting for its back-off
//   queued  behind another event of its key
//   suspect of breaking links: offered when nothing else is under way (suspects.cpp)
//   done    settled
//
// A route stands where it is not one event's trouble: it then offers one event at a time, in turn.
//   settings  the broker refuses the route: held
//   names     it forbids the names of all that the route has: held; what is new gets its chance at once
//   unclear   it gives all of it an answer that may pass: retrying
#pragma once

#include <memory>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "delivery/context.hpp"
#include "delivery/feed.hpp"
#include "delivery/key_lines.hpp"
#include "delivery/parked_keys.hpp"
#include "delivery/ring.hpp"

namespace eventbus::delivery {

class RouteQueue {
 public:
    static constexpr unsigned number_bits = 48;  // of a ticket; above them stands the route's slot

    // Tickets are ticket_base + number; numbers start at first_number.
    RouteQueue(router::Route route, Context& context, Feed& feed, StreamId stream, std::uint64_t ticket_base,
               std::uint64_t first_number);

    // A route's queue for a parked key of it; it takes nothing else.
    RouteQueue(const RouteQueue& whole, ParkedKey parked_key, ParkedKeyId number, Feed& feed, StreamId stream,
               std::uint64_t ticket_base, std::uint64_t first_number);

    void change(router::Route route);
    void remove();
    void pause(bool paused) { paused_ = paused; }
    bool is_paused() const { return paused_; }
    void release_hold();  // what waits is tried at once
    void share_evidence(const RouteQueue& with) { evidence_ = with.evidence_; }
    void move(Feed& feed, StreamId stream);
    void lent();                                                // the feed has grown
    std::uint64_t leave_out(const std::vector<Place>& chunks);  // their begins; returns how many were not settled

    // Parked keys, of the route (parked_key.cpp)
    bool waits_for_refused() const;  // that is its oldest event
    bool is_stuck(bool starved);     // so for long, while others are delivered
    ParkedKey part();                // with what makes it stuck
    void pass_over(const ParkedKey& parked_key);
    void take_again(const ParkedKey& parked_key);  // behind what is lent
    void absorb(const RouteQueue& parked_key);     // its counters; it goes
    // and of a parked key's queue
    const ParkedKey* parked_key() const { return parked_key_.get(); }
    ParkedKeyId parked_key_number() const { return parked_key_number_; }
    std::vector<EventId> settled_ahead() const;  // ParkedKey::settled as it is now

    // Offers at most `most` tickets and says how many were taken. Stops at the driver's first no, which
    // window_full() tells until new_drive().
    std::size_t offer(broker::Driver& driver, std::size_t most);
    void settle(std::uint64_t number, Settlement& settlement);
    void take_latencies(LatencyCounts& into);
    void link_lost();  // what the driver did not settle comes back as well
    void new_drive() {
        window_full_ = false;
        items_.give_back_if_empty();
        if (parked_keys_ > 0 && stands()) look_beside();
    }

    // Suspects of breaking links.
    const Suspicion* first_suspect();                   // nullptr where none may be offered
    std::size_t offer_suspect(broker::Driver& driver);  // the first one
    bool may_test() const { return !suspects_.empty() && may_offer() && !window_full_ && (!stands() || may_probe()); }
    bool has_suspects() const { return !suspects_.empty(); }
    void absolve(const EventId& culprit);

    bool has_offer() const {
        if (!may_offer() || window_full_) return false;
        return is_free() ? has_candidate() : may_probe() && (has_candidate() || !probes_.empty());
    }
    RouteId id() const { return id_; }
    std::uint32_t slot() const { return static_cast<std::uint32_t>(ticket_base_ >> number_bits); }
    StreamId stream() const { return stream_; }
    bool window_full() const { return window_full_; }
    bool is_removed() const { return removed_; }
    bool is_idle() const { return items_.empty() && next_event_ == nullptr; }
    bool stands_still() const { return !is_idle() && (paused_ || stands() || waits_for_refused()); }
    const router::TopicFilter* filter() const { return removed_ || parked_key_ ? nullptr : &route_->topics; }
    std::uint32_t in_flight() const { return in_flight_; }
    std::uint64_t next_number() const { return base_ + items_.size(); }
    Place settled() const;
    bool is_settled(Position event) const;
    TimePoint wake_at(bool may_test) const;  // while the link is up
    RouteStatus status(RouteState link_state) const;

 private:
    static constexpr std::uint64_t nobody = KeyLine::nobody;
    enum class State : std::uint8_t { ready, open, waiting, queued, suspect, done };
    enum class Offer : std::uint8_t { taken, full, dead };
    enum class Stand : std::uint8_t { no, settings, names, unclear };
    struct Extra {  // what few items need
        std::string name;
        std::string routing_key;
        std::string reason;
        Backoff backoff{Backoff::Duration(0), Backoff::Duration(0)};
        TimePoint refused_since{};
        std::uint64_t delivered_before = 0;  // by the route, when it first had to wait
        Trial trial;
    };
    struct Item {
        const Event* event = nullptr;
        Place place;
        TimePoint not_before{};
        std::uint32_t offered = 0;
        std::uint32_t refused = 0;
        std::uint64_t offer = 0;  // the last one
        State state = State::ready;
        bool left_out = false;  // forgotten when it settles
        bool unwanted = false;  // the route has been changed: not offered again
        Suspicion suspicion;
        std::unique_ptr<Extra> extra;
    };
    struct Former {  // a route before it was changed; open tickets may point into it
        std::uint64_t until;
        std::unique_ptr<const router::Route> route;
    };
    using Timer = std::pair<TimePoint, std::uint64_t>;
    template <typename T>
    using Earliest = std::priority_queue<T, std::vector<T>, std::greater<>>;

    bool matches(std::string_view topic);
    bool takes(const Event& event, Place place);
    bool would_take(const Event& event, Place place);  // for a place that the route has not come to
    bool is_left_out(Place place) const;
    const BitRows* known_takers() const;
    void seek();
    const char* source() const { return route_->options.from_wal ? "the WAL" : "the log"; }
    bool is_strict() const { return route_->options.order == router::Order::strict; }
    Item& item(std::uint64_t number) { return items_[number - base_]; }
    Item* find(std::uint64_t number) { return number - base_ < items_.size() ? &item(number) : nullptr; }
    Extra& extra(Item& of);
    std::unique_ptr<Extra> take_extra();
    void return_extra(Item& of);

    void wake_timers();
    TimePoint next_attempt_at() const;
    bool may_offer() const { return !paused_ && !removed_ && !(draining_ && in_flight_ > 0); }
    bool may_probe() const { return in_flight_ == 0 && context_.now >= held_until_; }
    bool has_candidate() const { return !ready_.empty() || next_event_ != nullptr; }
    std::uint64_t take_new();
    std::uint64_t candidate();
    Offer try_offer(std::uint64_t number, broker::Driver& driver, bool as_probe);
    void opened(std::uint64_t number, bool as_probe);
    void drop_unwanted();

    // While the route stands (route_stand.cpp)
    bool stands() const { return stand_ != Stand::no; }
    // Whether what has not been refused is offered as ever.
    bool is_free() const { return !stands() || (stand_ == Stand::names && has_candidate()); }
    std::uint64_t next_probe();
    void drop_too_old();
    TimePoint wake_standing(bool may_test) const;
    void stand(Stand why, std::uint64_t number, const std::string& words);
    void go_on(const std::string& told);
    void heal();
    void probe_failed();
    void begin_standing();
    void go_on_if_empty();
    void look_beside();

    // What a refusal tells (route_trial.cpp)
    std::uint64_t whose(const Item& of) const;
    void try_again(std::uint64_t number, Remedy remedy);
    bool is_own(const Item& it) const;
    bool is_all_refused();
    bool is_given_up(const Item& it, Remedy remedy) const;
    void nothing_passes(const Item& it, const std::string& words);
    void passes(std::uint64_t number);
    std::string with_name(const Item& it, std::string_view words) const;

    bool is_blocked(const KeyLine& line, std::uint64_t number) const;
    KeyLine* line_of(const Item& of) { return of.event->key ? lines_.find(*of.event->key) : nullptr; }
    void stand_in_line(KeyLine& line, std::uint64_t number);
    void leave_line(std::uint64_t number);
    void advance(KeyLine& line, std::string_view key);
    void activate(std::uint64_t number);

    bool is_suspect(const Item& it) const;
    void suspect(std::uint64_t number);
    void broke(std::uint64_t number);
    void come_back(std::uint64_t number);
    void refused(std::uint64_t number, Settlement& settlement);
    void wait(std::uint64_t number, const std::string& reason, Remedy remedy);
    void go_back(std::uint64_t number);
    static bool has_waited(const Item& it) { return it.extra && it.extra->refused_since != TimePoint{}; }
    bool recall(std::uint64_t number);
    bool was_settled(const EventId& id) const;
    void let_go(Item& it, ParkedKey& into);
    void delivered(const Item& of);
    void arrived_otherwise(std::uint64_t number, Settlement& settlement);
    void dead(std::uint64_t number, std::string error);
    void done(std::uint64_t number);
    void pop_done();
    bool is_too_old(const Event& event) const;
    std::string too_old_text(const Item& of) const;
    void note_error(const Item& of, const std::string& error);
    std::string shown() const;

    RouteId id_;
    std::unique_ptr<const router::Route> route_;
    std::vector<Former> former_;
    Context& context_;
    std::shared_ptr<Evidence> evidence_;  // of the route and its parked keys
    Feed* feed_;
    StreamId stream_;
    std::uint64_t ticket_base_;

    Place next_;                           // of next_event_
    const Event* next_event_ = nullptr;    // the first event that matches and is not taken; nullptr: none is lent
    std::vector<std::uint64_t> left_out_;  // chunks from there on that it passes over, rising
    std::uint64_t filters_until_ = 0;      // chunks before this one were lent when the filter was another
    std::string last_topic_;               // the last verdict of the filter
    bool last_verdict_ = false;

    PassedOver passed_over_;
    std::size_t parked_keys_ = 0;
    TimePoint parked_keys_since_{};
    bool told_enough_ = false;
    std::unique_ptr<ParkedKey> parked_key_;
    ParkedKeyId parked_key_number_ = 0;

    Ring<Item> items_;
    std::uint64_t base_;             // the number of items_.front()
    Earliest<std::uint64_t> ready_;  // some are stale, as in all that follow
    Earliest<Timer> timers_;
    std::set<std::pair<Suspicion, std::uint64_t>> suspects_;  // and numbers; what no longer fits is stale
    std::uint32_t guilty_ = 0;
    KeyLines lines_;
    std::unique_ptr<Extra> scratch_;
    std::vector<std::unique_ptr<Extra>> spare_;
    std::uint32_t in_flight_ = 0;
    bool window_full_ = false;
    bool paused_ = false;
    bool removed_ = false;
    bool draining_ = false;  // until nothing is under way: order became strict

    Stand stand_ = Stand::no;
    bool stands_empty_ = false;      // what it stands for has not to do with what waits
    std::uint64_t stand_begun_ = 0;  // the offer whose refusal said so last
    std::uint64_t probe_ = nobody;
    std::uint64_t probe_from_ = 0;    // the next one is not before it
    std::set<std::uint64_t> probes_;  // what was refused, while the route stands; some are stale
    TimePoint refused_since_{};       // for the time being, and nothing was delivered since
    TimePoint told_refused_{};        // that, as the log was told; until what waited is delivered
    std::size_t unsettled_ = 0;
    std::size_t refused_in_a_row_ = 0;  // forbidden or unclear, since evidence_ was
    std::uint64_t row_begun_ = 0;       // this
    TimePoint held_since_{};
    TimePoint held_until_{};
    TimePoint healed_at_{};
    Backoff hold_backoff_;
    Backoff unclear_backoff_;

    std::uint64_t delivered_ = 0;
    std::uint64_t latencies_taken_ = 0;  // what delivered_ was then
    LatencyCounts latencies_{};
    std::uint64_t dead_ = 0;
    std::uint64_t retries_ = 0;
    Moment last_delivered_at_;
    Moment last_error_at_;
    std::string last_error_;
};

}  // namespace eventbus::delivery
