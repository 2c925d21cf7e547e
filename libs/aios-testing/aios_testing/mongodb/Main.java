import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;

/** A server of MongoDB's protocol for tests: `Main <port> <file>`. What it has answered survives its being killed. */
public final class Main extends H2Backend {
    private Main(String file) {
        super(file);
        version(new Version());
    }

    @Override
    public Document handleMessage(MongoMessage message) {
        Document answer = super.handleMessage(message);
        commit();
        return answer;
    }

    /** What current clients want at least. */
    private static final class Version implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    }

    public static void main(String[] arguments) {
        MongoServer server = new MongoServer(new Main(arguments[1]));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        System.out.println("ready " + server.getLocalAddress().getPort());
    }
}
