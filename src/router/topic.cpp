// What it is: topics and the patterns that select them.
// Who calls it: publish (check_topic), create_route, delivery (once per event and route).
// Never: allocates while it matches.
#include <algorithm>

#include "core/bad_input.hpp"
#include "core/utf8.hpp"
#include "router/route.hpp"

namespace eventbus::router {

namespace {

constexpr std::size_t most_bytes = 255;
constexpr std::string_view one_word = "*";
constexpr std::string_view any_words = "#";

// Patterns may be in a database's own encoding, in which more than that may be something else.
bool has_ascii_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; });
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == '\n')) {
        text.remove_prefix(1);
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\n')) text.remove_suffix(1);
    return text;
}

// The text up to the next separator; `rest` loses both. False when there is no more.
bool next_part(std::string_view& rest, bool& done, char separator, std::string_view& part) {
    if (done) return false;
    const auto end = rest.find(separator);
    done = end == std::string_view::npos;
    part = rest.substr(0, end);
    if (!done) rest.remove_prefix(end + 1);
    return true;
}

[[noreturn]] void bad_pattern(std::string_view pattern, std::string detail) {
    std::string shown =
        has_ascii_control(pattern) ? std::string() : " \"" + std::string(pattern.substr(0, most_bytes)) + '"';
    throw BadInput("invalid topic pattern" + shown, std::move(detail),
                   "Patterns are words joined by dots, separated by commas; \"*\" stands for one word, \"#\" for zero "
                   "or more, as in \"shop.order.*, billing.#\".");
}

std::vector<std::string> words_of(std::string_view pattern) {
    if (pattern.empty()) bad_pattern(pattern, "A pattern must not be empty.");
    if (pattern.size() > most_bytes) bad_pattern(pattern, "A pattern has at most 255 bytes.");
    if (has_ascii_control(pattern)) bad_pattern(pattern, "A pattern has no control characters.");
    if (pattern.find('+') != std::string_view::npos) {
        bad_pattern(pattern, "\"+\" is no wildcard here; \"*\" stands for one word.");
    }
    std::vector<std::string> words;
    bool done = false;
    for (std::string_view rest = pattern, word; next_part(rest, done, '.', word);) {
        if (word.empty()) bad_pattern(pattern, "A word is empty.");
        if (word.size() > 1 && word.find_first_of("*#") != std::string_view::npos) {
            bad_pattern(pattern, "\"" + std::string(word) + "\": a wildcard is a whole word.");
        }
        words.emplace_back(word);
    }
    return words;
}

// Greedy, falling back to the latest "#" alone: at most words × words steps.
bool matches_words(const std::vector<std::string>& words, std::string_view topic) {
    constexpr std::size_t none = std::string_view::npos;
    std::size_t at = 0;
    std::size_t hash = none;
    std::size_t hash_from = 0;  // where the words start that the latest "#" has not swallowed
    const auto word_end = [&](std::size_t from) { return std::min(topic.find('.', from), topic.size()); };
    for (std::size_t from = 0; from <= topic.size();) {
        if (at < words.size() && words[at] == any_words) {
            hash = at++;
            hash_from = from;
            continue;
        }
        const auto end = word_end(from);
        if (at < words.size() && (words[at] == one_word || words[at] == topic.substr(from, end - from))) {
            ++at;
            from = end + 1;
            continue;
        }
        if (hash == none) return false;
        at = hash + 1;
        if (at == words.size()) return true;
        hash_from = word_end(hash_from) + 1;
        from = hash_from;
    }
    while (at < words.size() && words[at] == any_words) ++at;
    return at == words.size();
}

}  // namespace

void check_topic(std::string_view topic) {
    const auto bad = [](std::string detail) {
        throw BadInput("invalid topic", std::move(detail),
                       "A topic is 1 to 255 bytes: words joined by dots, without \"*\", \"#\", \"+\" and control "
                       "characters, as in \"shop.order.created\".");
    };
    if (topic.empty()) bad("The topic is empty.");
    if (topic.size() > most_bytes) bad("The topic has " + std::to_string(topic.size()) + " bytes.");
    char before = '.';
    for (std::size_t at = 0; at < topic.size(); ++at) {
        const char c = topic[at];
        if (is_control_at(topic, at))
            bad("The topic has a control character, " + name_of(character_at(topic, at).point) + '.');
        if (c == '*' || c == '#' || c == '+') bad(std::string("The topic has a \"") + c + "\".");
        if (c == '.' && before == '.') bad("The topic has an empty word.");
        before = c;
    }
    if (before == '.') bad("The topic has an empty word.");
}

TopicFilter::TopicFilter(std::string_view patterns) {
    bool done = false;
    for (std::string_view rest = patterns, part; next_part(rest, done, ',', part);) {
        const auto text = trimmed(part);
        auto words = words_of(text);
        bool all_hash = true;
        bool exact = true;
        for (const auto& word : words) {
            all_hash = all_hash && word == any_words;
            exact = exact && word != any_words && word != one_word;
        }
        everything_ = everything_ || all_hash;
        if (exact) words.clear();
        patterns_.push_back({std::string(text), std::move(words)});
    }
}

bool TopicFilter::matches(std::string_view topic) const {
    if (everything_) return true;
    for (const auto& pattern : patterns_) {
        if (pattern.words.empty() ? pattern.text == topic : matches_words(pattern.words, topic)) return true;
    }
    return false;
}

}  // namespace eventbus::router
