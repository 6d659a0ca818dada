// What it is: the options of a broker or a route: a JSON object whose values are asked for by name and type.
// Who calls it: the readers of options that all protocols have, and each protocol's module for its own.
// Never: quotes a value, which may hold a secret.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace eventbus {

using OptionNames = std::span<const std::string_view>;

enum class OptionsOf : std::uint8_t { broker, route };

// Which options there are.
struct KnownOptions {
    OptionsOf of;
    std::string_view protocol;
    std::vector<OptionNames> names;
    std::string hint;  // lists them
    // Whether another protocol has an option of that name; may be missing.
    bool (*is_elsewhere)(OptionsOf of, std::string_view name) = nullptr;

    void check(const std::string& name) const;  // throws BadInput where there is none of that name
};

class Options;

// One of those that were given. Each reader throws BadInput that says what the value has to be.
class Option {
 public:
    bool boolean() const;
    std::int64_t whole_number(std::int64_t least, std::int64_t most) const;
    std::string text(std::string_view what) const;                            // what: "a template, such as ..."
    std::string filled_text(std::string_view what) const;                     // not empty
    std::string list(std::string_view what) const;                            // "a, b" or ["a", "b"]: the former
    std::size_t one_of(std::initializer_list<std::string_view> words) const;  // which of them
    double seconds() const;  // of a duration; throws nothing: below 0 where it is none
    std::uint32_t whole_seconds(std::uint32_t most) const;
    const nlohmann::json& value() const { return *value_; }

    // what: words that continue from "It is" or "It must be", without the full stop.
    [[noreturn]] void must_be(std::string_view what) const;

 private:
    friend class Options;
    Option(const Options& all, std::string_view name, const nlohmann::json& value)
        : all_(&all), name_(name), value_(&value) {}

    const Options* all_;
    std::string_view name_;
    const nlohmann::json* value_;
};

class Options {
 public:
    // json: the text of an object. Throws BadInput where it is none, or has a name that is not known.
    Options(KnownOptions known, std::string_view json);

    std::optional<Option> find(std::string_view name) const;
    std::vector<std::string> names() const;  // of those that are given

 private:
    friend class Option;
    KnownOptions known_;
    std::shared_ptr<const nlohmann::json> json_;
};

}  // namespace eventbus
