// What it is: text between the database's encoding and UTF-8, which brokers get; and foreign words made safe to show.
// Who calls it: intake before an event is stored, the readers of log and WAL, whoever shows what came from outside.
// Never: needs a transaction in a database of UTF-8 or SQL_ASCII, or for ASCII; elsewhere the conversion is a function.
#pragma once

#include <string_view>

#include "postgres/prelude.hpp"

extern "C" {
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
}

namespace eventbus {

inline bool database_is_utf8() {
    return GetDatabaseEncoding() == PG_UTF8;
}

// How many bytes of a valid text of the database go over into UTF-8: all of them, or those before the first character
// that it does not have. In SQL_ASCII bytes that are valid UTF-8 are taken for that.
Size convertible(std::string_view text);
// What is wrong with the text there, in PostgreSQL's words, and the code that goes with it; palloc'd.
struct BadCharacter {
    const char* words;
    int sqlstate;
};
BadCharacter bad_character(std::string_view text, Size at);

// An error where the text has such a character: "WHAT holds a character that cannot be delivered".
void check_convertible(const char* what, std::string_view text, const char* hint);
[[noreturn]] void refuse_character(const char* message, std::string_view text, Size at, const char* hint);

// The text in UTF-8, palloc'd where it is not itself. Errors where it has a character that UTF-8 does not have.
std::string_view to_utf8(std::string_view text);
// The same with a question mark for each such character, and for each byte that is none in the database's encoding;
// *whole: there was none. Never errors.
std::string_view to_utf8_or_marks(std::string_view text, bool* whole = nullptr);

// A name of what all databases share (roles, databases, settings) may have been given in another encoding: with a
// question mark for what is no character here, or has none in UTF-8.
const char* readable_name(const char* name);

// UTF-8, or anything, as valid text of the database; palloc'd. A question mark stands for what it cannot hold; *whole:
// there was none. Without a transaction, that is all beyond ASCII where the encoding is neither UTF-8 nor SQL_ASCII.
char* from_utf8(std::string_view words, bool* whole = nullptr);
// The same, good for one line.
char* shown_text(std::string_view words);
// The same into a buffer, cut between characters.
void show_text(char* to, Size room, std::string_view words);
// A text of the database's encoding, cut between characters.
void copy_text(char* to, Size room, const char* text);

}  // namespace eventbus
