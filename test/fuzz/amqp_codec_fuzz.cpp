// What it is: frames of AMQP and what is inside of them, as brokers send them.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: reads beyond what has come.
#include "broker/amqp/login.hpp"
#include "input.hpp"

using namespace eventbus;
using namespace eventbus::broker::amqp;

namespace {

bool lies_in(std::string_view part, std::string_view whole) {
    return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void read_payload(std::string_view payload) {
    const Method method = read_method(payload);
    for (const auto text : {method.text, method.exchange, method.routing_key, method.mechanisms})
        fuzz::check(lies_in(text, payload), "a text from elsewhere");
    fuzz::check(method.text.size() <= short_string_max, "a short string is long");
    static_cast<void>(words(method.code, method.text));
    const Limits limits = agree(method, 30);
    fuzz::check(limits.frame_max >= least_frame_max && limits.frame_max <= most_frame_max, "a frame's limit");
    const ContentHeader header = read_content_header(payload);
    fuzz::check(lies_in(header.message_id, payload), "an id from elsewhere");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact bytes(fuzz::view(data, size));
    read_payload(bytes.view());
    static_cast<void>(not_amqp(bytes.view(), "amqp"));
    FrameWriter frames;
    std::string out;
    BrokerSettings settings;
    settings.password = "password";
    const std::string problem = append_start_ok(frames, out, bytes.view(), settings);
    fuzz::check(problem.empty() != out.empty(), "half a login", problem);
    for (auto rest = bytes.view(); !rest.empty();) {
        Frame frame;
        if (read_frame(rest, least_frame_max, frame) != Framing::whole) break;
        fuzz::check(frame.size >= frame_overhead && frame.size <= rest.size(), "a frame's size");
        read_payload(frame.payload);
        rest.remove_prefix(frame.size);
    }
    return 0;
}
