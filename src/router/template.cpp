// What it is: the templates of destinations and routing keys.
// Who calls it: create_route (to check), delivery (to render, once per event and route).
// Never: copies where a view will do.
#include <nlohmann/json.hpp>
#include <optional>

#include "core/headers.hpp"

#include "core/bad_input.hpp"
#include "router/route.hpp"

namespace eventbus::router {

namespace {

constexpr std::string_view header_prefix = "header:";

[[noreturn]] void bad_template(std::string_view text, std::string detail) {
    throw BadInput("invalid template \"" + std::string(text) + '"', std::move(detail),
                   "Placeholders are {topic}, {topic/} (dots become slashes), {key} and {header:NAME}; \"{{\" and "
                   "\"}}\" stand for braces.");
}

// Strings as they are, numbers and the rest as JSON text, nothing for null and for what is missing.
void append_header(const nlohmann::json& headers, const std::string& name, std::string& out) {
    if (!headers.is_object()) return;
    const auto found = headers.find(name);
    if (found == headers.end() || found->is_null()) return;
    if (found->is_string()) {
        out += found->get_ref<const std::string&>();
    } else {
        out += found->dump();
    }
}

}  // namespace

Template::Template(std::string_view text) {
    if (text.size() > longest_text)
        throw BadInput("template is too long", "It is " + std::to_string(text.size()) + " bytes long.",
                       "The longest has " + std::to_string(longest_text) + " bytes.");
    if (text.empty()) bad_template(text, "The template is empty.");
    std::string plain;
    const auto end_plain = [&] {
        if (!plain.empty()) pieces_.push_back({Part::text, std::move(plain)});
        plain.clear();
    };
    for (std::size_t at = 0; at < text.size();) {
        const char c = text[at];
        if (c != '{' && c != '}') {
            plain += c;
            ++at;
            continue;
        }
        if (at + 1 < text.size() && text[at + 1] == c) {
            plain += c;
            at += 2;
            continue;
        }
        if (c == '}') bad_template(text, "A closing brace has no opening one.");
        const auto close = text.find('}', at);
        if (close == std::string_view::npos) bad_template(text, "An opening brace has no closing one.");
        const auto name = text.substr(at + 1, close - at - 1);
        if (name.find('{') != std::string_view::npos) bad_template(text, "An opening brace has no closing one.");
        end_plain();
        if (name == "topic") {
            pieces_.push_back({Part::topic, {}});
        } else if (name == "topic/") {
            pieces_.push_back({Part::topic_slashes, {}});
        } else if (name == "key") {
            pieces_.push_back({Part::key, {}});
        } else if (name.starts_with(header_prefix) && name.size() > header_prefix.size()) {
            pieces_.push_back({Part::header, std::string(name.substr(header_prefix.size()))});
        } else {
            bad_template(text, "Unknown placeholder {" + std::string(name) + "}.");
        }
        constant_ = false;
        at = close + 1;
    }
    end_plain();
}

std::string_view Template::render(const Event& event, std::string& scratch) const {
    if (pieces_.empty()) return {};
    if (pieces_.size() == 1) {
        const auto& only = pieces_.front();
        if (only.part == Part::text) return only.text;
        if (only.part == Part::topic) return event.topic;
        if (only.part == Part::key) return event.key.value_or(std::string_view());
    }
    scratch.clear();
    std::optional<nlohmann::json> headers;
    for (const auto& piece : pieces_) {
        if (scratch.size() > longest_text) break;
        switch (piece.part) {
            case Part::text:
                scratch += piece.text;
                break;
            case Part::topic:
                scratch += event.topic;
                break;
            case Part::topic_slashes:
                for (const char c : event.topic) scratch += c == '.' ? '/' : c;
                break;
            case Part::key:
                scratch += event.key.value_or(std::string_view());
                break;
            case Part::header:
                if (event.headers.empty()) break;
                if (!headers) headers = parse_headers(event.headers);
                append_header(*headers, piece.text, scratch);
                break;
        }
    }
    return scratch;
}

std::string Template::literal() const {
    std::string text;
    for (const auto& piece : pieces_)
        if (piece.part == Part::text) text += piece.text;
    return text;
}

}  // namespace eventbus::router
