#include "postgres/encoding.hpp"

#include <algorithm>

extern "C" {
#include "catalog/namespace.h"
}

namespace eventbus {

namespace {

constexpr Size piece = 8192;  // converted at a time

bool is_ascii(std::string_view text) {
    constexpr uint64 high_bits = UINT64CONST(0x8080808080808080);
    const char* at = text.data();
    const char* end = at + text.size();
    uint64 seen = 0;
    for (; end - at >= 8; at += 8) {
        uint64 word;
        memcpy(&word, at, sizeof word);
        seen |= word;
    }
    for (; at < end; ++at) seen |= static_cast<unsigned char>(*at) & 0x80;
    return (seen & high_bits) == 0;
}

Size valid(int encoding, std::string_view text) {
    constexpr Size most = INT_MAX / 2;
    Size done = 0;
    while (done < text.size()) {
        auto length = static_cast<int>(std::min(text.size() - done, most));
        int good = pg_encoding_verifymbstr(encoding, text.data() + done, length);
        done += static_cast<Size>(good);
        // Where a part ends within a character the next one begins with it.
        if (good < length && (length < static_cast<int>(most) || good == 0)) break;
    }
    return done;
}

// From one encoding into another until a character cannot be had there; what it becomes is appended.
Size convert(int from, int to, std::string_view text, StringInfo out) {
    Oid function = FindDefaultConversionProc(from, to);
    unsigned char made[piece * MAX_CONVERSION_GROWTH + 1];
    Size done = 0;
    while (done < text.size()) {
        const char* at = text.data() + done;
        Size left = text.size() - done;
        Size length = std::min(left, piece);
        if (left > piece)
            length = static_cast<Size>(
                pg_encoding_mbcliplen(from, at, static_cast<int>(piece + 1), static_cast<int>(piece)));
        Size good = 0;
        if (OidIsValid(function)) {
            auto* source = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(at));
            good = static_cast<Size>(pg_do_encoding_conversion_buf(function, from, to, source, static_cast<int>(length),
                                                                   made, sizeof made, true));
            if (out != nullptr) appendStringInfoString(out, reinterpret_cast<char*>(made));
        } else {
            while (good < length && !IS_HIGHBIT_SET(at[good]) && at[good] != '\0') ++good;
            if (out != nullptr) appendBinaryStringInfo(out, at, static_cast<int>(good));
        }
        done += good;
        if (good < length || length == 0) break;
    }
    return done;
}

// Of the database's text into UTF-8. Appends nothing where the text is UTF-8 as it is.
Size convert_to_utf8(std::string_view text, StringInfo out) {
    int encoding = GetDatabaseEncoding();
    if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII) return convert(encoding, PG_UTF8, text, out);
    Size good = valid(PG_UTF8, text);
    if (out != nullptr) appendBinaryStringInfo(out, text.data(), static_cast<int>(good));
    return good;
}

// What a text begins with that is no character: at least a byte.
Size bad_length(int encoding, std::string_view text) {
    if (encoding == PG_SQL_ASCII) encoding = PG_UTF8;
    int length = pg_encoding_mblen(encoding, text.data());
    bool whole = length > 0 && static_cast<Size>(length) <= text.size() &&
                 pg_encoding_verifymbchar(encoding, text.data(), length) == length;
    return whole ? static_cast<Size>(length) : 1;
}

}  // namespace

Size convertible(std::string_view text) {
    if (database_is_utf8() || is_ascii(text)) return text.size();
    return convert_to_utf8(text, nullptr);
}

BadCharacter bad_character(std::string_view text, Size at) {
    int encoding = GetDatabaseEncoding();
    std::string_view rest = text.substr(at);
    StringInfoData bytes;
    initStringInfo(&bytes);
    for (unsigned char byte : rest.substr(0, bad_length(encoding, rest)))
        appendStringInfo(&bytes, "%s0x%02x", bytes.len > 0 ? " " : "", byte);
    if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
        return {psprintf("invalid byte sequence for encoding \"UTF8\": %s", bytes.data),
                ERRCODE_CHARACTER_NOT_IN_REPERTOIRE};
    return {psprintf("character with byte sequence %s in encoding \"%s\" has no equivalent in encoding \"UTF8\"",
                     bytes.data, GetDatabaseEncodingName()),
            ERRCODE_UNTRANSLATABLE_CHARACTER};
}

void refuse_character(const char* message, std::string_view text, Size at, const char* hint) {
    BadCharacter bad = bad_character(text, at);
    ereport(ERROR, (errcode(bad.sqlstate), errmsg("%s", message), errdetail("Brokers get UTF-8: %s.", bad.words),
                    errhint("%s", hint)));
    pg_unreachable();
}

void check_convertible(const char* what, std::string_view text, const char* hint) {
    Size good = convertible(text);
    if (good != text.size())
        refuse_character(psprintf("%s holds a character that cannot be delivered", what), text, good, hint);
}

std::string_view to_utf8(std::string_view text) {
    if (database_is_utf8() || is_ascii(text)) return text;
    Size good;
    std::string_view made = text;
    if (GetDatabaseEncoding() == PG_SQL_ASCII) {
        good = valid(PG_UTF8, text);
    } else {
        StringInfoData out;
        initStringInfo(&out);
        good = convert_to_utf8(text, &out);
        made = {out.data, static_cast<Size>(out.len)};
    }
    if (good == text.size()) return made;
    BadCharacter bad = bad_character(text, good);
    ereport(ERROR, (errcode(bad.sqlstate), errmsg("%s", bad.words)));
    pg_unreachable();
}

std::string_view to_utf8_or_marks(std::string_view text, bool* whole) {
    if (whole != nullptr) *whole = true;
    if (is_ascii(text)) return text;
    StringInfoData out;
    initStringInfo(&out);
    int encoding = GetDatabaseEncoding();
    for (Size at = 0; at < text.size();) {
        at += convert_to_utf8(text.substr(at), &out);
        if (at == text.size()) break;
        if (whole != nullptr) *whole = false;
        appendStringInfoChar(&out, '?');
        at += bad_length(encoding, text.substr(at));
    }
    return {out.data, static_cast<Size>(out.len)};
}

const char* readable_name(const char* name) {
    std::string_view text(name);
    if (is_ascii(text)) return name;
    int encoding = GetDatabaseEncoding();
    char* shown = pstrdup(name);
    char* to = shown;
    for (Size at = 0; at < text.size();) {
        // What is a character in the encoding may still have none in UTF-8.
        Size own = encoding == PG_SQL_ASCII ? text.size() - at : valid(encoding, text.substr(at));
        Size good = own == 0 ? 0 : convert_to_utf8(text.substr(at, own), nullptr);
        memcpy(to, name + at, good);
        to += good;
        at += good;
        if (at == text.size()) break;
        *to++ = '?';
        at += bad_length(encoding, text.substr(at));
    }
    *to = '\0';
    return shown;
}

char* from_utf8(std::string_view words, bool* whole) {
    if (whole != nullptr) *whole = true;
    if (is_ascii(words) && memchr(words.data(), '\0', words.size()) == nullptr)
        return pnstrdup(words.data(), words.size());
    int encoding = GetDatabaseEncoding();
    StringInfoData out;
    initStringInfo(&out);
    while (!words.empty()) {
        Size good;
        if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII) {
            good = valid(PG_UTF8, words);
            appendBinaryStringInfo(&out, words.data(), static_cast<int>(good));
        } else if (IsTransactionState()) {
            good = convert(PG_UTF8, encoding, words, &out);
        } else {
            for (good = 0; good < words.size() && !IS_HIGHBIT_SET(words[good]) && words[good] != '\0';) ++good;
            appendBinaryStringInfo(&out, words.data(), static_cast<int>(good));
        }
        words.remove_prefix(good);
        if (words.empty()) break;
        if (whole != nullptr) *whole = false;
        appendStringInfoChar(&out, '?');
        words.remove_prefix(bad_length(PG_UTF8, words));
    }
    return out.data;
}

char* shown_text(std::string_view words) {
    char* shown = from_utf8(words);
    for (char* c = shown; *c != '\0'; ++c)
        if (static_cast<unsigned char>(*c) < 0x20 || *c == 0x7f) *c = ' ';
    return shown;
}

void show_text(char* to, Size room, std::string_view words) {
    char* text = shown_text(words.substr(0, std::min(words.size(), room)));
    copy_text(to, room, text);
    pfree(text);
}

void copy_text(char* to, Size room, const char* text) {
    auto length = static_cast<int>(strlen(text));
    if (static_cast<Size>(length) >= room) length = pg_mbcliplen(text, length, static_cast<int>(room - 1));
    memcpy(to, text, static_cast<Size>(length));
    to[length] = '\0';
}

}  // namespace eventbus
