#include "intake/characters.hpp"

#include "intake/publish.hpp"
#include "postgres/guest.hpp"

extern "C" {
#include "utils/jsonb.h"
}

namespace eventbus::intake {

namespace {

// Escapes are the database's own business: what is delivered is the text.
std::string_view text_of(Datum jsonb) {
    Jsonb* json = DatumGetJsonbP(jsonb);
    StringInfoData text;
    initStringInfo(&text);
    JsonbToCString(&text, &json->root, static_cast<int>(VARSIZE(json)));
    return {text.data, static_cast<Size>(text.len)};
}

}  // namespace

void check_characters_by_hand(const log::NewEvent& event) {
    MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "pg_eventbus characters", ALLOCSET_SMALL_SIZES);
    MemoryContext caller = MemoryContextSwitchTo(memory);
    if (event.key != nullptr) {
        check_convertible("key", text_view(event.key), leave_it_out);
        check_key_size(to_utf8(text_view(event.key)).size());
    }
    if (event.has_headers) check_convertible("headers", text_of(event.headers), leave_it_out);
    if (event.payload_column != log::column_bytes) {
        std::string_view payload = event.payload_column == log::column_json
                                       ? text_of(event.payload)
                                       : text_view(reinterpret_cast<const text*>(DatumGetPointer(event.payload)));
        check_convertible("payload", payload,
                          "Leave the character out, or publish the bytes with eventbus.publish_bytes.");
        check_payload_size(to_utf8(payload).size());
    }
    MemoryContextSwitchTo(caller);
    MemoryContextDelete(memory);
}

}  // namespace eventbus::intake
