// What it is: what routes from the WAL want of the server and of tables.
// Who calls it: create_route, the sender before it opens a source, health().
// Never: changes a setting; it says which line to put into postgresql.conf.
#pragma once

#include "source/wal/source.hpp"

namespace eventbus::wal {

// These run between SPI_connect and SPI_finish.
// What the server must be set to: what is missing, and the line that has to go into postgresql.conf. Both nullptr where
// all is well.
struct Need {
    const char* what;
    const char* hint;
};
Need missing_setting(bool slot_exists);

// Publications that are selected and do not exist: nothing comes through them. Comma-separated; nullptr: all exist.
const char* missing_publications(const Selection& selection);

// Whether events with that topic are wanted.
struct AskForTopic {
    bool (*wants)(void* context, std::string_view topic);
    void* context;
};
// The tables that are selected, whose UPDATEs or DELETEs are wanted, and that have no replica identity. At most a few
// names, comma-separated; nullptr: there is none.
const char* tables_without_identity(const Selection& selection, AskForTopic ask);
// What their events lack, as a sentence without its period.
const char* words_without_identity(const Selection& selection);

// Patterns of "tables" of which no table is taken so far. Comma-separated; nullptr: there is none.
const char* patterns_without_tables(const Selection& selection);
// Tables that the topics name of which no rows come under that name. Comma-separated; nullptr: there is none.
const char* topics_without_rows(const Selection& selection, AskForTopic ask);
// Whether the route takes no messages, and no change that a table could have now.
bool takes_nothing(const Selection& selection, AskForTopic ask);
// Whether "tables" names some, and no change that they could have now has a topic that is wanted.
bool names_tables_in_vain(const Selection& selection, AskForTopic ask);

// A table whose rows are wanted, and of which the publications let through different columns: its changes cannot be
// decoded. nullptr: there is none.
const char* contradicted_table(const Selection& selection, AskForTopic ask);

}  // namespace eventbus::wal
