// What it is: replies of Redis, in pieces as they come, and what an error means.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: keeps more than it may of what continues without end.
#include "broker/redis/replies.hpp"

#include "input.hpp"

using namespace eventbus;
using namespace eventbus::broker::redis;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    ReplyReader reader("postgresql://fuzz/db");
    reader.expect_long(input.byte() % 2 == 1);
    const auto take = [](const Reply& reply) {
        fuzz::check(reply.entries.size() <= 10'000, "more entries than anybody asks for");
        fuzz::check(!shown_words(reply.words).empty() || reply.words.empty() || reply.words.starts_with(", with args"),
                    "no words are left");
        static_cast<void>(remedy_of(reply.words));
        static_cast<void>(shown_kind(reply));
        static_cast<void>(is_entry_id(reply.words));
        static_cast<void>(needs_login(reply.words) || refuses_login(reply.words));
    };
    while (!input.empty()) {
        const unsigned times = 1U << input.byte() % 12;
        const fuzz::Exact piece(input.piece());
        std::string bytes;
        for (unsigned i = 0; i < times && bytes.size() < std::size_t{2} << 20; ++i) bytes += piece.view();
        const fuzz::Exact all(bytes);
        if (!reader.read(all.view(), take)) break;
    }
    return 0;
}
