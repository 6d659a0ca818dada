// What it is: an event of any content as a message of AMQP.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: appends a part of a message that it refuses.
#include "broker/amqp/amqp_message.hpp"

#include "any_message.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const unsigned flags = input.byte();
    const broker::Addressing addressing{.kind = flags % 2 == 0 ? "queue" : "exchange",
                                        .own = std::make_shared<broker::amqp::AmqpRoute>()};
    const fuzz::AnyMessage message(input, flags, addressing);
    std::string out = "before";
    broker::amqp::FrameWriter frames;
    frames.set_frame_max(broker::amqp::least_frame_max);
    broker::amqp::MessageWriter messages("postgresql://fuzz/db");
    const std::string problem = messages.write(frames, out, 1, message.outgoing);
    fuzz::check(problem.empty() == (out.size() > 6), "half a message", problem);
    for (std::string_view rest = std::string_view(out).substr(6); !rest.empty();) {
        broker::amqp::Frame frame;
        const auto read = broker::amqp::read_frame(rest, broker::amqp::least_frame_max, frame);
        fuzz::check(read == broker::amqp::Framing::whole, "a message is not made of frames");
        rest.remove_prefix(frame.size);
    }
    return 0;
}
