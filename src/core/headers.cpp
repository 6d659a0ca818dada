#include "core/headers.hpp"

#include <nlohmann/json.hpp>

#include "core/json.hpp"

namespace eventbus {

bool are_headers(std::string_view text) {
    return text.size() <= longest_headers_delivered && is_json_object(text, deepest_headers);
}

nlohmann::json parse_headers(std::string_view text) {
    if (!are_headers(text)) return nullptr;
    return nlohmann::json::parse(text, nullptr, false);
}

}  // namespace eventbus
