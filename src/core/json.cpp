#include "core/json.hpp"

#include <algorithm>
#include <bitset>

namespace eventbus {

namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

class Reader {
 public:
    Reader(std::string_view text, std::size_t deepest) : text_(text), deepest_(std::min(deepest, deepest_json)) {}

    bool is_value() {
        for (;;) {
            if (!begin()) return false;
            if (!begun_) continue;  // what was opened has something in it
            for (;;) {
                skip_space();
                if (depth_ == 0) return text_.empty();
                if (take(',')) break;
                if (!close()) return false;
            }
            if (is_object_[depth_ - 1] && !key()) return false;
        }
    }

 private:
    // Up to the end of a value, or into one that is not empty; then begun_ is false.
    bool begin() {
        skip_space();
        begun_ = true;
        if (text_.empty()) return false;
        switch (text_.front()) {
            case '{':
            case '[':
                return open();
            case '"':
                return string();
            case 't':
                return word("true");
            case 'f':
                return word("false");
            case 'n':
                return word("null");
            default:
                return number();
        }
    }

    bool open() {
        if (depth_ == deepest_) return false;
        is_object_[depth_] = text_.front() == '{';
        text_.remove_prefix(1);
        ++depth_;
        skip_space();
        if (close()) return true;
        begun_ = false;
        return !is_object_[depth_ - 1] || key();
    }

    bool close() {
        if (!take(is_object_[depth_ - 1] ? '}' : ']')) return false;
        --depth_;
        return true;
    }

    bool key() {
        skip_space();
        if (!string()) return false;
        skip_space();
        return take(':');
    }

    bool string() {
        if (!take('"')) return false;
        while (!text_.empty()) {
            const char c = text_.front();
            text_.remove_prefix(1);
            if (c == '"') return true;
            if (static_cast<unsigned char>(c) < 0x20) return false;
            if (c == '\\' && !escape()) return false;
        }
        return false;
    }

    bool escape() {
        if (!take('u')) {
            if (text_.empty() || std::string_view("\"\\/bfnrt").find(text_.front()) == std::string_view::npos)
                return false;
            text_.remove_prefix(1);
            return true;
        }
        for (int i = 0; i < 4; ++i) {
            if (text_.empty() || !is_hex(text_.front())) return false;
            text_.remove_prefix(1);
        }
        return true;
    }

    bool number() {
        (void)take('-');
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) (void)take('-');
            return digits();
        }
        return true;
    }

    bool digits() {
        const std::size_t before = text_.size();
        while (!text_.empty() && is_digit(text_.front())) text_.remove_prefix(1);
        return text_.size() < before;
    }

    bool word(std::string_view name) {
        if (!text_.starts_with(name)) return false;
        text_.remove_prefix(name.size());
        return true;
    }

    bool take(char c) {
        if (text_.empty() || text_.front() != c) return false;
        text_.remove_prefix(1);
        return true;
    }

    void skip_space() {
        while (!text_.empty() && is_space(text_.front())) text_.remove_prefix(1);
    }

    std::string_view text_;
    std::size_t deepest_;
    std::size_t depth_ = 0;
    bool begun_ = false;
    std::bitset<deepest_json> is_object_;
};

}  // namespace

bool is_json(std::string_view text) {
    return Reader(text, deepest_json).is_value();
}

bool is_json_object(std::string_view text, std::size_t deepest) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    return text.starts_with('{') && Reader(text, deepest).is_value();
}

}  // namespace eventbus
