// What it is: wal2json's way of writing lists: words between commas, with white space around them and backslashes.
// Who calls it: the options.
// Never: says what is wrong; whoever asks knows the option's name.
#pragma once

#include "decoder/plugin_options.hpp"

namespace eventbus::decoder {

// Each appends to its list, and is false where the text is no list. Backslashes stay in words.
bool split_words(const char* text, List** words);
bool split_oids(const char* text, List** oids);
// schema.table, where a lone * is any; backslashes are taken out.
bool split_tables(const char* text, List** tables);

}  // namespace eventbus::decoder
