// What it is: URLs of brokers, as whoever calls create_broker writes them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: lets an error or a shown URL tell a password.
#include "core/bad_input.hpp"
#include "core/broker_settings.hpp"
#include "input.hpp"

using namespace eventbus;

// Of such a URL nothing is secret but what stands behind a "?".
static bool is_good_without_host(std::string_view text) {
    try {
        return parse_url(text, 1, false).hosts.empty();
    } catch (const BadInput&) {
        return false;
    }
}

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
        // What is shown does not depend on the password, whatever else it may be a part of.
        const auto colon = text.view().find(':', text.view().find("://") + 3);
        const auto at = text.view().rfind('@');
        if (!url.password.empty() && colon < at && at != std::string_view::npos) {
            const std::string other =
                std::string(text.view().substr(0, colon + 1)) + "another" + std::string(text.view().substr(at));
            fuzz::check(redact_url(other) == shown, "a shown URL tells the password", shown);
        }
    } catch (const BadInput&) {
        fuzz::check(is_good_without_host(text.view()) || shown == "***" || shown.ends_with("://***"),
                    "more is shown than the scheme", shown);
    }
    return 0;
}
