// What it is: the readers of options' values, with the words for each that is wrong.
// Who calls it: whoever reads options of brokers and routes.
// Never: knows an option.
#include "core/options.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/bad_input.hpp"
#include "core/duration.hpp"

namespace eventbus {

namespace {

using Json = nlohmann::json;

std::string noun(OptionsOf of) {
    return of == OptionsOf::broker ? "broker option" : "route option";
}

// 5 and 5.0, and what else is one in JSON.
std::optional<std::int64_t> whole(const Json& value) {
    constexpr double exact = 9007199254740992.0;  // 2^53
    if (value.is_number_unsigned()) {
        const auto number = value.get<std::uint64_t>();
        if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
        return static_cast<std::int64_t>(number);
    }
    if (value.is_number_integer()) return value.get<std::int64_t>();
    if (!value.is_number()) return std::nullopt;
    const double number = value.get<double>();
    if (!(std::abs(number) <= exact) || number != std::floor(number)) return std::nullopt;
    return static_cast<std::int64_t>(number);
}

}  // namespace

void KnownOptions::check(const std::string& name) const {
    for (const OptionNames& list : names)
        if (std::find(list.begin(), list.end(), name) != list.end()) return;
    if (is_elsewhere != nullptr && is_elsewhere(of, name))
        throw BadInput(noun(of) + " \"" + name + "\" is not for " + std::string(protocol), {}, hint);
    throw BadInput("unknown " + noun(of) + " \"" + name + '"', {}, hint);
}

void Option::must_be(std::string_view what) const {
    const OptionsOf of = all_->known_.of;
    const std::string message = "invalid value for " + noun(of) + " \"" + std::string(name_) + '"';
    if (of == OptionsOf::broker) throw BadInput(message, "It must be " + std::string(what) + '.', all_->known_.hint);
    throw BadInput(message, {}, "It is " + std::string(what) + '.');
}

bool Option::boolean() const {
    if (!value_->is_boolean()) must_be("true or false");
    return value_->get<bool>();
}

std::int64_t Option::whole_number(std::int64_t least, std::int64_t most) const {
    const auto number = whole(*value_);
    if (!number || *number < least || *number > most)
        must_be("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    return *number;
}

std::string Option::text(std::string_view what) const {
    const auto* text = value_->get_ptr<const std::string*>();
    if (text == nullptr || text->find('\0') != std::string::npos) must_be(what);
    return *text;
}

std::string Option::filled_text(std::string_view what) const {
    std::string made = text(what);
    if (made.empty()) must_be(what);
    return made;
}

std::string Option::list(std::string_view what) const {
    if (!value_->is_array()) return text(what);
    std::string list;
    for (const auto& item : *value_) list += (list.empty() ? "" : ", ") + Option(*all_, name_, item).text(what);
    return list;
}

std::size_t Option::one_of(std::initializer_list<std::string_view> words) const {
    std::string all;
    for (const auto& word : words) {
        if (*value_ == word) return static_cast<std::size_t>(&word - words.begin());
        all += (all.empty() ? "\"" : &word + 1 == words.end() ? " or \"" : ", \"") + std::string(word) + '"';
    }
    must_be(all);
}

double Option::seconds() const {
    const auto* text = value_->get_ptr<const std::string*>();
    if (text != nullptr) return read_duration(*text).value_or(-1);
    return value_->is_number() ? value_->get<double>() : -1;
}

std::uint32_t Option::whole_seconds(std::uint32_t most) const {
    const double seconds = this->seconds();
    if (!(seconds >= 0 && seconds <= most) || seconds != std::floor(seconds))
        must_be(std::string(duration_form) + ", in whole seconds from 0 to " + std::to_string(most));
    return static_cast<std::uint32_t>(seconds);
}

Options::Options(KnownOptions known, std::string_view json) : known_(std::move(known)) {
    const std::string all = noun(known_.of) + 's';
    const auto read = std::make_shared<const Json>(Json::parse(json, nullptr, false));
    // It comes out of a jsonb: what cannot be parsed is a number that no double holds.
    if (read->is_discarded() && json.starts_with('{'))
        throw BadInput(all + " hold a number out of range", {}, known_.hint);
    if (!read->is_object()) throw BadInput(all + " must be a JSON object", {}, known_.hint);
    json_ = read;
    for (const auto& name : names()) known_.check(name);
}

std::optional<Option> Options::find(std::string_view name) const {
    const auto found = json_->find(std::string(name));
    if (found == json_->end()) return std::nullopt;
    return Option(*this, name, *found);
}

std::vector<std::string> Options::names() const {
    std::vector<std::string> names;
    for (const auto& item : json_->items()) names.push_back(item.key());
    return names;
}

}  // namespace eventbus
