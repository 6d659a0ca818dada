// What it is: templates of destinations, with headers that a publisher has written.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: renders more than a brace's text of what is constant.
#include "core/bad_input.hpp"
#include "input.hpp"
#include "router/route.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const fuzz::Exact text(input.piece());
    const fuzz::Exact key(input.piece());
    const fuzz::Exact headers(input.rest());
    try {
        const router::Template made(text.view());
        Event event;
        event.topic = "shop.order";
        if (!key.view().empty()) event.key = key.view();
        event.headers = headers.view();
        std::string scratch;
        const std::string once(made.render(event, scratch));
        fuzz::check(made.render(event, scratch) == once, "rendered twice it differs");
        if (made.is_constant()) fuzz::check(once == made.literal(), "what is constant is not its literal");
    } catch (const BadInput&) {
    }
    return 0;
}
