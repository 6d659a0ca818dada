// What it is: the Redis driver beside a server that means harm.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: differs from what conversation.hpp asks of drivers.
#include "conversation.hpp"

using namespace eventbus;

namespace {

const fuzz::Protocol protocol{
    .login =
        [](unsigned flags) { return std::string("+OK\r\n+PONG\r\n+OK\r\n") + ((flags & 2) != 0 ? "+OK\r\n" : ""); },
    .frame =
        [](unsigned kind, std::string_view body) {
            constexpr std::string_view marks = "$+-:*";
            const char mark = marks[kind % marks.size()];
            std::string out(1, mark);
            if (mark == '$') out += std::to_string(body.size()) + "\r\n";
            return out + std::string(body) + "\r\n";
        },
    .complaint =
        [](std::string_view words) {
            std::string line(words);
            for (char& c : line) c = c == '\r' || c == '\n' ? ' ' : c;
            return "-ERR unknown command, with these: '" + line + "'\r\n";
        },
    .address =
        [](fuzz::Input& input) {
            constexpr const char* kinds[] = {"channel", "list", "stream"};
            const unsigned byte = input.byte();
            return test::addressing_of(kinds[byte % 3], byte % 6 == 5 ? R"({"maxlen":1})" : "{}");
        },
    .kind = "stream",
    .options = R"({"maxlen":1})",
    .most_sent_back = 256 * 1024,
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const bool several = input.byte() % 2 == 1;
    const fuzz::Conversation conversation(
        fuzz::settings_of(several ? "redis://app:x@one,two" : "redis://app:x@one", 6379), protocol, input);
    return 0;
}
