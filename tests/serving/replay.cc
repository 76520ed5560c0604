// Loads a SavedModel as TensorFlow Serving does, and answers requests without Python.
//
// replay MODEL_DIR LOGS ANSWERS reads a TFRecord file of tensorflow.serving.PredictionLog and writes
// one of answers: 'R' and a tensorflow.serving.PredictResponse, or 'E' and an error message.

#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "google/protobuf/unknown_field_set.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/lib/io/record_reader.h"
#include "tensorflow/core/lib/io/record_writer.h"
#include "tensorflow/core/platform/env.h"

using google::protobuf::UnknownFieldSet;

namespace {

// The protos of TensorFlow Serving are not in TensorFlow's library; these are their fields.
constexpr int kPredictLog = 6;      // of PredictionLog
constexpr int kRequest = 1;         // of PredictLog
constexpr int kModelSpec = 1;       // of PredictRequest
constexpr int kInputs = 2;          // of PredictRequest: map<string, TensorProto>
constexpr int kSignatureName = 3;   // of ModelSpec
constexpr int kOutputs = 1;         // of PredictResponse: map<string, TensorProto>
constexpr int kKey = 1, kValue = 2; // of an entry of a map

void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

std::vector<std::string> Fields(const std::string& message, int number) {
  UnknownFieldSet set;
  if (!set.ParseFromString(message)) throw std::runtime_error("not a message");
  std::vector<std::string> found;
  for (int i = 0; i < set.field_count(); ++i) {
    if (set.field(i).number() == number) found.push_back(set.field(i).length_delimited());
  }
  return found;
}

std::string Field(const std::string& message, int number) {
  return Fields(message, number).at(0);
}

std::string Answer(const tensorflow::SavedModelBundleLite& model, const std::string& request) {
  const auto& signature =
      model.GetSignatures().at(Field(Field(request, kModelSpec), kSignatureName));
  std::vector<std::pair<std::string, tensorflow::Tensor>> inputs;
  for (const std::string& entry : Fields(request, kInputs)) {
    tensorflow::TensorProto proto;
    tensorflow::Tensor tensor;
    if (!proto.ParseFromString(Field(entry, kValue)) || !tensor.FromProto(proto)) {
      throw std::runtime_error("not a tensor");
    }
    inputs.emplace_back(signature.inputs().at(Field(entry, kKey)).name(), tensor);
  }
  std::vector<std::string> keys, names;
  for (const auto& [key, info] : signature.outputs()) {
    keys.push_back(key);
    names.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> outputs;
  Check(model.GetSession()->Run(inputs, names, {}, &outputs));
  UnknownFieldSet response;
  for (size_t i = 0; i < outputs.size(); ++i) {
    tensorflow::TensorProto proto;
    if (outputs[i].dtype() == tensorflow::DT_STRING) {
      outputs[i].AsProtoField(&proto);
    } else {
      outputs[i].AsProtoTensorContent(&proto);
    }
    UnknownFieldSet entry;
    entry.AddLengthDelimited(kKey, keys[i]);
    entry.AddLengthDelimited(kValue, proto.SerializeAsString());
    std::string bytes;
    entry.SerializeToString(&bytes);
    response.AddLengthDelimited(kOutputs, bytes);
  }
  std::string bytes;
  response.SerializeToString(&bytes);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  tensorflow::SavedModelBundleLite model;
  Check(tensorflow::LoadSavedModel({}, {}, argv[1], {"serve"}, &model));
  std::unique_ptr<tensorflow::RandomAccessFile> logs;
  Check(tensorflow::Env::Default()->NewRandomAccessFile(argv[2], &logs));
  std::unique_ptr<tensorflow::WritableFile> answers;
  Check(tensorflow::Env::Default()->NewWritableFile(argv[3], &answers));
  tensorflow::io::SequentialRecordReader reader(logs.get());
  tensorflow::io::RecordWriter writer(answers.get());
  tensorflow::tstring log;
  while (reader.ReadRecord(&log).ok()) {
    std::string answer;
    try {
      answer = "R" + Answer(model, Field(Field(std::string(log), kPredictLog), kRequest));
    } catch (const std::runtime_error& error) {
      answer = "E" + std::string(error.what());
    }
    Check(writer.WriteRecord(answer));
  }
  Check(writer.Close());
  Check(answers->Close());
}
