// What it is: a paho MQTTAsync program that publishes messages like ours at QoS 1, so many of them under way at once.
// Who calls it: bench/figures/drain.py, as the baseline for draining into mosquitto.
// Never: reads a database; its messages are ready before its clock starts.
#include <MQTTAsync.h>

#include <semaphore>

#include "program.hpp"

namespace {

struct Run {
    explicit Run(std::int64_t window) : room(window) {}

    std::counting_semaphore<> room;
    std::binary_semaphore connected{0};
};

void connected(void* run, MQTTAsync_successData5*) {
    static_cast<Run*>(run)->connected.release();
}

void acknowledged(void* run, MQTTAsync_successData5* data) {
    // NO_MATCHING_SUBSCRIBERS is a success, too.
    if (data->reasonCode >= 0x80) bench::fail("publish", MQTTReasonCode_toString(data->reasonCode));
    static_cast<Run*>(run)->room.release();
}

void failed(void*, MQTTAsync_failureData5* data) {
    const bool said = data->reasonCode != MQTTREASONCODE_SUCCESS;
    bench::fail("mqtt", said ? MQTTReasonCode_toString(data->reasonCode) : MQTTAsync_strerror(data->code));
}

void check(int code, const char* what) {
    if (code != MQTTASYNC_SUCCESS) bench::fail(what, MQTTAsync_strerror(code));
}

MQTTLenString text(std::string_view value) {
    return {static_cast<int>(value.size()), const_cast<char*>(value.data())};
}

MQTTProperty user_property(std::string_view name, std::string_view value) {
    MQTTProperty property{};
    property.identifier = MQTTPROPERTY_CODE_USER_PROPERTY;
    property.value.data = text(name);
    property.value.value = text(value);
    return property;
}

MQTTProperty payload_is_text() {
    MQTTProperty property{};
    property.identifier = MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR;
    property.value.byte = 1;
    return property;
}

MQTTProperty content_type(std::string_view value) {
    MQTTProperty property{};
    property.identifier = MQTTPROPERTY_CODE_CONTENT_TYPE;
    property.value.data = text(value);
    return property;
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const std::string& destination = arguments.text("destination");
    const std::string& payload = arguments.text("payload");
    const std::int64_t count = arguments.number("count");
    const std::int64_t window = arguments.number("window");
    const auto stamps = bench::make_stamps(count);

    Run run(window);
    const std::string url = "tcp://127.0.0.1:" + arguments.text("port");
    MQTTAsync client;
    MQTTAsync_createOptions creation = MQTTAsync_createOptions_initializer5;
    creation.maxBufferedMessages = static_cast<int>(window);
    check(MQTTAsync_createWithOptions(&client, url.c_str(), "bench-baseline", MQTTCLIENT_PERSISTENCE_NONE, nullptr,
                                      &creation),
          "create");
    MQTTAsync_connectOptions connection = MQTTAsync_connectOptions_initializer5;
    connection.cleanstart = 1;
    connection.maxInflight = static_cast<int>(window);
    connection.context = &run;
    connection.onSuccess5 = connected;
    connection.onFailure5 = failed;
    check(MQTTAsync_connect(client, &connection), "connect");
    run.connected.acquire();

    MQTTProperty properties[] = {payload_is_text(),
                                 content_type("application/json"),
                                 user_property("event-id", ""),
                                 user_property("event-topic", arguments.text("topic")),
                                 user_property("event-time", ""),
                                 user_property("event-source", arguments.text("source"))};
    MQTTAsync_message message = MQTTAsync_message_initializer;
    message.payload = const_cast<char*>(payload.data());
    message.payloadlen = static_cast<int>(payload.size());
    message.qos = 1;
    for (MQTTProperty& property : properties) MQTTProperties_add(&message.properties, &property);
    MQTTAsync_responseOptions response = MQTTAsync_responseOptions_initializer;
    response.context = &run;
    response.onSuccess5 = acknowledged;
    response.onFailure5 = failed;

    const std::int64_t start = bench::now_ns();
    for (const bench::Stamp& stamp : stamps) {
        run.room.acquire();
        message.properties.array[2].value.value = text(stamp.id);
        message.properties.array[4].value.value = text(stamp.time);
        check(MQTTAsync_sendMessage(client, destination.c_str(), &message, &response), "publish");
    }
    for (std::int64_t i = 0; i < window; ++i) run.room.acquire();
    bench::print_rate(count, bench::now_ns() - start);

    MQTTAsync_destroy(&client);
}
