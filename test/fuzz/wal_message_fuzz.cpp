// What it is: messages of publish_wal, which anybody may write into the WAL by pg_logical_emit_message.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: reads beyond its content.
#include "core/wal_message.hpp"
#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact content(fuzz::view(data, size));
    Event event;
    if (!read_wal_message(content.view(), event)) return 0;
    std::string again(wal_message_size(event), '\0');
    fuzz::check(again.size() == content.view().size(), "its size is another one");
    write_wal_message(event, again.data());
    Event same;
    fuzz::check(read_wal_message(again, same), "what was written is not read");
    fuzz::check(same.topic == event.topic && same.key == event.key && same.content_type == event.content_type &&
                    same.headers == event.headers && same.payload == event.payload &&
                    same.published_at == event.published_at && same.is_bytes == event.is_bytes,
                "what was written is read otherwise");
    return 0;
}
