// What it is: ids and times of events, as brokers give them back.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: reads what it would write otherwise.
#include "core/event_id.hpp"
#include "core/time_text.hpp"
#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact text(fuzz::view(data, size));
    if (const auto id = read_event_id(text.view())) {
        EventIdText room;
        const auto again = read_event_id(to_text(*id, room));
        fuzz::check(again && *again == *id, "an id is not read as it is written");
    }
    if (const auto time = unix_us_of(text.view())) {
        std::array<char, rfc3339_length> room;
        fuzz::check(rfc3339(*time, room) == text.view(), "a time is not written as it was read", text.view());
    }
    return 0;
}
