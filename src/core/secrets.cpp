#include "core/secrets.hpp"

#include <algorithm>
#include <cstdint>

namespace eventbus {

namespace {

constexpr std::string_view hidden = "***";
constexpr std::size_t piece = 8;        // as many bytes are told from other words
constexpr std::size_t least_whole = 4;  // below, a secret may be a part of any word
constexpr std::size_t least_cut = 3;
constexpr std::size_t most_compared = 4096;

bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_control(char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// What came back as a question mark, or a blank, may have been a byte that nobody prints.
bool same(char told, char secret) {
    if (told == secret) return true;
    return (told == '?' && (is_control(secret) || static_cast<unsigned char>(secret) >= 0x80)) ||
           (told == ' ' && is_control(secret));
}

bool begins(std::string_view text, std::string_view secret) {
    return text.size() >= secret.size() &&
           std::equal(secret.begin(), secret.end(), text.begin(), [](char its, char told) { return same(told, its); });
}

std::string base64(std::string_view bytes) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        std::uint32_t three = 0;
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - at);
        for (std::size_t i = 0; i < 3; ++i)
            three = three << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0U);
        for (std::size_t i = 0; i <= count; ++i) out += digits[three >> (18 - 6 * i) & 63];
    }
    return out;
}

std::string with_hex(std::string_view text, std::string_view mark, std::string_view digits, bool percent) {
    std::string out;
    for (const char c : text) {
        const bool plain = percent ? is_alphanumeric(c) || std::string_view("-._~").find(c) != std::string_view::npos
                                   : c >= 0x20 && c < 0x7f;
        if (!percent && (c == '"' || c == '\'' || c == '\\')) out += '\\';
        if (plain) {
            out += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        out += mark;
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

void hide(std::string& mask, std::size_t from, std::size_t size) {
    std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(from), size, '\1');
}

void hide_whole(std::string_view text, std::string_view secret, std::string& mask) {
    for (std::size_t at = 0; at + secret.size() <= text.size(); ++at) {
        if (!begins(text.substr(at), secret)) continue;
        const std::size_t end = at + secret.size();
        const bool within_a_word =
            (at > 0 && is_alphanumeric(text[at - 1])) || (end < text.size() && is_alphanumeric(text[end]));
        if (secret.size() >= least_whole || !within_a_word) hide(mask, at, secret.size());
    }
}

void hide_pieces(std::string_view text, std::string_view secret, std::string& mask) {
    for (std::size_t at = 0; at + piece <= text.size(); ++at)
        for (std::size_t from = 0; from + piece <= secret.size(); ++from)
            if (begins(text.substr(at), secret.substr(from, piece))) {
                hide(mask, at, piece);
                break;
            }
}

// The secret's beginning right before `end`, where the rest was cut off.
void hide_cut(std::string_view text, std::size_t end, std::string_view secret, std::string& mask) {
    for (std::size_t size = std::min({secret.size() - 1, piece, end}); size >= least_cut; --size)
        if (begins(text.substr(end - size, size), secret.substr(0, size))) return hide(mask, end - size, size);
}

}  // namespace

Secrets::Secrets(const BrokerSettings& settings) {
    const std::string& password = settings.password;
    if (password.empty()) return;
    const std::string& user = settings.url.user;
    constexpr std::string_view upper = "0123456789ABCDEF";
    constexpr std::string_view lower = "0123456789abcdef";
    const std::string plain = std::string(1, '\0') + user + std::string(1, '\0') + password;
    for (std::string each : {password, base64(password), base64(plain), base64(user + ':' + password),
                             with_hex(password, "%", upper, true), with_hex(password, "%", lower, true),
                             with_hex(password, "\\x", lower, false), with_hex(password, "\\x", upper, false)}) {
        each.resize(std::min(each.size(), most_compared));
        if (std::find(secrets_.begin(), secrets_.end(), each) == secrets_.end()) secrets_.push_back(std::move(each));
    }
}

std::string Secrets::scrubbed(std::string_view text) const {
    std::string mask(text.size(), '\0');
    constexpr std::string_view dots = "...";
    for (const std::string& secret : secrets_) {
        hide_whole(text, secret, mask);
        if (secret.size() > piece) hide_pieces(text, secret, mask);
        if (secret.size() < least_whole) continue;
        hide_cut(text, text.size(), secret, mask);
        for (auto at = text.find(dots); at != std::string_view::npos; at = text.find(dots, at + 1))
            hide_cut(text, at, secret, mask);
    }
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (mask[at] == '\0')
            out += text[at];
        else if (at == 0 || mask[at - 1] == '\0')
            out += hidden;
    }
    return out;
}

}  // namespace eventbus
