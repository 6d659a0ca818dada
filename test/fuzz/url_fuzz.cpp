// What it is: URLs of brokers, as whoever calls create_broker writes them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: lets an error or a shown URL tell a password.
#include "core/bad_input.hpp"
#include "core/settings.hpp"
#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact text(fuzz::view(data, size));
    const std::string shown = redact_url(text.view());
    try {
        const Url url = parse_url(text.view(), 1);
        fuzz::check(!url.hosts.empty(), "a URL without hosts");
        for (const Host& host : url.hosts) {
            fuzz::check(host.is_unix() || host.port != 0, "a host without a port");
            static_cast<void>(host.shown());
        }
        fuzz::check(url_scheme(text.view()) == url.scheme, "two schemes");
        // Long enough to be no part of something else, and none of what hides it.
        if (url.password.size() >= 8 && url.password.find('*') == std::string::npos)
            fuzz::check(text.view().find(url.password) != text.view().rfind(url.password) ||
                            shown.find(url.password) == std::string::npos,
                        "a shown URL tells the password", shown);
    } catch (const BadInput&) {
        fuzz::check(shown == "***" || shown.ends_with("://***"), "more is shown than the scheme", shown);
    }
    return 0;
}
