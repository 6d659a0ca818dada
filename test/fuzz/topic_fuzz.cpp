// What it is: topics and patterns; a filter, and the index of filters, find the same.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: sees anything but BadInput thrown.
#include "core/bad_input.hpp"
#include "core/topic.hpp"
#include "input.hpp"
#include "router/topic_index.hpp"

using namespace eventbus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const fuzz::Exact topic(input.piece());
    const fuzz::Exact first(input.piece());
    const fuzz::Exact second(input.rest());
    bool is_right = true;
    try {
        router::check_topic(topic.view());
    } catch (const BadInput&) {
        is_right = false;
    }
    fuzz::check(is_right == is_topic(topic.view()), "two opinions of a topic");
    try {
        const router::TopicFilter one(first.view());
        const router::TopicFilter other(second.view());
        router::TopicIndex index;
        index.add(one, 7);
        index.add(other, 9);
        if (!is_right) return 0;
        bool found[2] = {};
        for (const auto number : index.matches(topic.view())) found[number == 9] = true;
        fuzz::check(found[0] == one.matches(topic.view()) && found[1] == other.matches(topic.view()),
                    "filter and index differ");
    } catch (const BadInput&) {
    }
    return 0;
}
