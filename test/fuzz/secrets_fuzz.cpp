// What it is: words of a broker, and a password that may stand in them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: finds it there afterwards.
#include "core/secrets.hpp"

#include "input.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    BrokerSettings settings;
    settings.url.user = input.piece().substr(0, 100);
    settings.password = input.piece().substr(0, 200);
    const fuzz::Exact text(input.rest().substr(0, 1000));
    const Secrets secrets(settings);
    const std::string once = secrets.scrubbed(text.view());
    const std::string_view password = settings.password;
    if (password.empty()) fuzz::check(once == text.view(), "there was nothing to hide", once);
    // Three asterisks may be a part of the password itself.
    if (password.size() >= 4 && password.find('*') == std::string_view::npos)
        fuzz::check(once.find(password) == std::string::npos, "the password is told", once);
    fuzz::check(secrets.scrubbed(std::string(text.view()) + settings.password).size() <= size + 3 * size, "it grows");
    return 0;
}
