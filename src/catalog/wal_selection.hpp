// What it is: what a route's options ask of the WAL's decoder.
// Who calls it: create_route and alter_route (to check), the sender.
// Never: knows what the texts mean.
#pragma once

#include "broker/driver.hpp"
#include "source/wal/source.hpp"

namespace eventbus::catalog {

// The texts are palloc'd. Errors where the options cannot be read.
wal::Selection wal_selection(const char* options, const broker::Module& module);

// The tables without a replica identity of which a route with these topics takes UPDATEs or DELETEs, for people to
// read; nullptr: there is none. Between SPI_connect and SPI_finish.
const char* tables_without_identity(const wal::Selection& selection, const char* topics);

// A table of which the route takes rows, and that its publications show with different columns; nullptr: there is none.
const char* contradicted_table(const wal::Selection& selection, const char* topics);
bool takes_nothing(const wal::Selection& selection, const char* topics);
bool names_tables_in_vain(const wal::Selection& selection, const char* topics);
// Tables that the topics name of which no rows come under that name; nullptr: there is none.
const char* topics_without_rows(const wal::Selection& selection, const char* topics);

// The first pattern of "messages" that is written as one of topics, with # for words; nullptr: there is none. palloc'd.
const char* pattern_of_topics(const char* messages);

}  // namespace eventbus::catalog
