// What it is: the one exception for what a user wrote wrongly: message, detail, hint.
// Who calls it: parsers of URLs, options, patterns and templates; call_guest turns it into an ereport.
// Never: carries a password; the thrower quotes only what may be shown.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace eventbus {

class BadInput : public std::exception {
 public:
    explicit BadInput(std::string message, std::string detail = {}, std::string hint = {})
        : message_(std::move(message)), detail_(std::move(detail)), hint_(std::move(hint)) {}

    const char* what() const noexcept override { return message_.c_str(); }
    const std::string& message() const noexcept { return message_; }
    const std::string& detail() const noexcept { return detail_; }
    const std::string& hint() const noexcept { return hint_; }

 private:
    std::string message_;  // PostgreSQL's style: lower case first, no period
    std::string detail_;   // a sentence, or empty
    std::string hint_;     // a sentence that says what is valid, or empty
};

}  // namespace eventbus
