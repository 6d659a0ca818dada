// What it is: what pg_stat_activity says of the sender: whom it serves, and what it does or waits for.
// Who calls it: the sender's loop, before it sleeps.
// Never: writes anything while nothing has changed: it is called in every round.
#include "postgres/encoding.hpp"
#include "postgres/guest.hpp"
#include "postgres/query.hpp"
#include "sender/sender.hpp"

extern "C" {
#include "utils/backend_status.h"
}

namespace eventbus::sender {

namespace {

enum class Doing : unsigned char {
    nothing_yet,
    delivering,
    idle,
    awaiting_answers,
    retrying,
    connecting,
    paused,
    down,
    blocked
};

struct Now {
    Doing doing;
    broker::TimePoint until;  // of `down`: the next attempt
};

Now look(bool busy) {
    return call_guest([&]() -> Now {
        const broker::TimePoint next = sender.dispatcher->wake_at();
        const bool never = next == broker::TimePoint::max();  // where all routes are paused, it does not connect
        switch (sender.dispatcher->link()) {
            case broker::LinkState::connecting:
                return {never ? Doing::paused : Doing::connecting, {}};
            case broker::LinkState::down:
                if (never) return {Doing::paused, {}};
                return {Doing::down, next};
            case broker::LinkState::blocked:
                return {Doing::blocked, {}};
            case broker::LinkState::up:
                break;
        }
        if (busy) return {Doing::delivering, {}};
        const delivery::Load load = sender.dispatcher->load();
        return {load.under_way ? Doing::awaiting_answers : load.waiting ? Doing::retrying : Doing::idle, {}};
    });
}

// What there is to say of each. The name of the wait is for PostgreSQL 17 and newer; older ones show the text alone.
struct Words {
    const char* text;
    const char* wait_event;
};

Words words_of(Doing doing) {
    switch (doing) {
        case Doing::awaiting_answers:
            return {"waiting for acknowledgements", "EventbusSenderAcknowledge"};
        case Doing::retrying:
            return {"waiting to offer again what was refused, or for a paused route", "EventbusSenderRetry"};
        case Doing::connecting:
            return {"connecting", "EventbusSenderConnect"};
        case Doing::paused:
            return {"not connected, all routes are paused", "EventbusSenderRetry"};
        case Doing::down:
            return {"down, next attempt at", "EventbusSenderBrokerDown"};
        case Doing::blocked:
            return {"takes no messages for now", "EventbusSenderBrokerBlocked"};
        case Doing::idle:
            return {"nothing to deliver", "EventbusSenderMain"};
        case Doing::nothing_yet:
        case Doing::delivering:
            break;
    }
    return {"delivering", "EventbusSenderMain"};
}

// `standstill`: why routes are idle; empty: nothing has come.
void show(const Now& now, const char* standstill) {
    static char text[1024];
    static Size prefix = 0;  // "broker NAME: " stays there
    if (prefix == 0) {
        char name[NAMEDATALEN];
        copy_text(name, sizeof name, sender.broker_name);
        prefix = static_cast<Size>(snprintf(text, sizeof text, "broker \"%s\": ", name));
    }
    char* end = text + prefix + strlcpy(text + prefix, words_of(now.doing).text, sizeof text - prefix);
    auto room = static_cast<Size>(text + sizeof text - end);
    if (now.doing == Doing::down || now.doing == Doing::blocked) {
        char error[512];
        show_text(error, sizeof error, call_guest([&] { return sender.dispatcher->link_error(); }));
        auto pause = std::chrono::duration_cast<std::chrono::microseconds>(now.until - broker::Clock::now()).count();
        const char* until = now.doing == Doing::down ? timestamptz_to_str(GetCurrentTimestamp() + pause) : "";
        snprintf(end, room, "%s%s: %s", *until != '\0' ? " " : "", until, error);
    }
    if (standstill[0] != '\0') snprintf(end, room, "; %s", standstill);
    pgstat_report_activity(now.doing == Doing::delivering ? STATE_RUNNING : STATE_IDLE, text);
}

}  // namespace

const char* show_activity(bool busy) {
    static Now shown = {};
    static std::uint32_t seen = 0;
    static char shown_standstill[768] = "";
    Now now = look(busy);
    const char* standstill = "";
    for (Source* source : sources())
        if (now.doing == Doing::idle && standstill[0] == '\0') standstill = source->standstill();
    if (now.doing != shown.doing || now.until != shown.until || seen != activities_shown() ||
        strcmp(standstill, shown_standstill) != 0)
        show(now, standstill);
    strlcpy(shown_standstill, standstill, sizeof shown_standstill);
    shown = now;
    seen = activities_shown();
    return words_of(now.doing).wait_event;
}

}  // namespace eventbus::sender
