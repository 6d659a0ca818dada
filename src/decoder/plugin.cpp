// What it is: the logical-decoding output plugin "pg_eventbus": PostgreSQL's callbacks.
// Who calls it: PostgreSQL, for slots made with the plugin.
// Never: needs the extension, or shared_preload_libraries.
#include "decoder/changes.hpp"
#include "decoder/debezium.hpp"
#include "postgres/encoding.hpp"
#include "postgres/envelope.hpp"
#include "settings/settings.hpp"

extern "C" {
#include "commands/dbcommands.h"
#include "replication/origin.h"

PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks* callbacks);
}

namespace eventbus::decoder {

namespace {

Decoder* decoder_of(LogicalDecodingContext* context) {
    return static_cast<Decoder*>(context->output_plugin_private);
}

// The catalog is not there for messages outside of transactions, so what they need of it is looked up here.
Piece look_up_source_names(Decoder* decoder) {
    bool own_transaction = !IsTransactionState();
    if (own_transaction) StartTransactionCommand();
    StringInfoData names;
    MemoryContext before = MemoryContextSwitchTo(decoder->memory);
    initStringInfo(&names);
    const char* name = decoder->options.source != nullptr ? decoder->options.source : settings::source_name();
    append_source_names(&names, name, readable_name(get_database_name(MyDatabaseId)));
    MemoryContextSwitchTo(before);
    if (own_transaction) CommitTransactionCommand();
    return piece_of(names);
}

void startup(LogicalDecodingContext* context, OutputPluginOptions* output, bool is_init) {
    output->output_type = OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
    MemoryContext memory = AllocSetContextCreate(context->context, "pg_eventbus decoder", ALLOCSET_DEFAULT_SIZES);
    MemoryContext before = MemoryContextSwitchTo(memory);
    auto* decoder = static_cast<Decoder*>(palloc0(sizeof(Decoder)));
    decoder->context = context;
    decoder->memory = memory;
    decoder->scratch = AllocSetContextCreate(memory, "pg_eventbus decoded change", ALLOCSET_DEFAULT_SIZES);
    decoder->stamp = static_cast<Stamp*>(palloc0(sizeof(Stamp)));
    read_options(context->output_plugin_options, &decoder->options);
    decoder->options.tells_of_publications = true;
    decoder->options.leaves_out_unreadable = true;  // an error would stop the slot for good
    decoder->format = !decoder->options.wal2json      ? &debezium_format
                      : decoder->options.version == 1 ? &wal2json_format_1
                                                      : &wal2json_format_2;
    const Options& options = decoder->options;
    bool boundaries = options.wal2json ? options.version == 1 || options.include_transaction : options.transactions;
    decoder->shows_empty = boundaries && !options.skip_empty;
    if (!is_init && !decoder->options.wal2json) decoder->options.source_names = look_up_source_names(decoder);
    decoder->plans = make_plans(memory, &decoder->options, decoder->format->prepare);
    MemoryContextSwitchTo(before);
    context->output_plugin_private = decoder;
    // wal2json's format has no words for parts of transactions; they come whole, at their COMMIT.
    context->streaming = context->streaming && decoder->options.streaming;
    if (decoder->options.wal2json && !is_init) context->twophase = false;
}

void shutdown(LogicalDecodingContext* context) {
    MemoryContextDelete(decoder_of(context)->memory);
}

bool filter_by_origin(LogicalDecodingContext* context, RepOriginId origin) {
    const Options& options = decoder_of(context)->options;
    if (origin == InvalidRepOriginId) return false;
    return options.local_only || list_member_oid(options.filter_origins, origin);
}

void begin(LogicalDecodingContext* context, ReorderBufferTXN* txn) {
    Decoder* decoder = decoder_of(context);
    decoder->progress = {};
    if (decoder->format->start != nullptr) decoder->format->start(decoder, txn);
    if (decoder->shows_empty) ensure_begun(decoder, txn);
}

void commit(LogicalDecodingContext* context, ReorderBufferTXN* txn, XLogRecPtr lsn) {
    Decoder* decoder = decoder_of(context);
    report_progress(decoder, !decoder->progress.begun, true);
    if (decoder->progress.begun) decoder->format->commit(decoder, txn, lsn);
}

}  // namespace

void ensure_begun(Decoder* decoder, ReorderBufferTXN* txn) {
    Progress* progress = current_progress(decoder);
    if (progress->begun) return;
    progress->begun = true;
    if (decoder->streamed == nullptr) decoder->format->begin(decoder, txn);
}

}  // namespace eventbus::decoder

using namespace eventbus::decoder;

void _PG_output_plugin_init(OutputPluginCallbacks* callbacks) {
    callbacks->startup_cb = startup;
    callbacks->shutdown_cb = shutdown;
    callbacks->filter_by_origin_cb = filter_by_origin;
    callbacks->begin_cb = begin;
    callbacks->commit_cb = commit;
    callbacks->change_cb = write_change;
    callbacks->truncate_cb = write_truncate;
    callbacks->message_cb = write_message;
    add_stream_callbacks(callbacks);
}
