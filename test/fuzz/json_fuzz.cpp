// What it is: whether a text is JSON, as another reader of JSON sees it.
// Who calls it: libFuzzer, through test/fuzz/run.
// Never: differs from it but in depth, in numbers' range, and in bytes that are no UTF-8.
#include "core/json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "input.hpp"

using namespace eventbus;

namespace {

std::size_t depth_of(std::string_view json) {
    std::size_t depth = 0;
    std::size_t deepest = 0;
    bool quoted = false;
    for (std::size_t at = 0; at < json.size(); ++at) {
        const char c = json[at];
        if (quoted && c == '\\')
            ++at;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{'))
            deepest = std::max(deepest, ++depth);
        else if (!quoted && (c == ']' || c == '}'))
            --depth;
    }
    return deepest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Exact text(fuzz::view(data, size));
    const bool ours = is_json(text.view());
    if (is_json_object(text.view())) fuzz::check(ours, "an object that is no JSON");
    // The other one looks at bytes beyond ASCII, and takes a zero byte for the end.
    const auto is_special = [](char c) { return c == '\0' || static_cast<unsigned char>(c) >= 0x80; };
    if (std::any_of(text.view().begin(), text.view().end(), is_special)) return 0;
    if (text.view().find("\\u") != std::string_view::npos) return 0;  // it may stand for half a character
    const bool theirs = nlohmann::json::accept(text.view());
    const bool has_number = text.view().find_first_of("0123456789") != std::string_view::npos;
    if (theirs)
        fuzz::check(ours == (depth_of(text.view()) <= deepest_json), "two opinions of JSON", text.view());
    else
        fuzz::check(!ours || has_number, "two opinions of JSON", text.view());
    return 0;
}
